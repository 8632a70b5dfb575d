"""What a backbone is told besides the frames: actions."""

from __future__ import annotations

from dreamwalk.conditions.kinds import KindsReader, PublishedKinds
from dreamwalk.conditions.letters import Letters, LettersConfig
from dreamwalk.conditions.published import PublishedReader, PublishedWords

WordsConfig = LettersConfig | PublishedWords | PublishedKinds
"""Of what reads the words: trained along, or published."""


def build_reader(config: WordsConfig) -> Letters | PublishedReader:
    """Texts to `Words`, as a config describes it."""
    match config:
        case LettersConfig():
            return Letters(config)
        case PublishedKinds():
            return KindsReader(config)
        case PublishedWords():
            return PublishedReader(config)
