"""HunyuanVideo-1.5 as its authors sample it: what its folder says, in the layout of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dreamwalk.backbones.mmdit_multi import MultiEncoderMMDiTConfig
from dreamwalk.codecs.shuffle import ShuffleVAEConfig
from dreamwalk.conditions.hunyuan15 import Hunyuan15TextConfig
from dreamwalk.published.vae import AGAIN
from dreamwalk.systems.moviegen import MoviegenConfig
from dreamwalk.validation import Positive, conform, read_json

SIZES = {640: (480, 848), 960: (720, 1280)}
"""Height and width of clips, by the side of the square that has as many pixels."""


def published(
    folder: Path, backbone: MultiEncoderMMDiTConfig, codec: ShuffleVAEConfig, *, words: str, image: str | None
) -> MoviegenConfig:
    """For words, or for pictures where an `image` is shown (arXiv 2511.18870). Size, shift and guidance
    differ from one to another, and are what its configs of the transformer, the scheduler and the guider say.
    """
    side = _said(folder / "transformer" / "config.json", "target_size", int, 640)
    return MoviegenConfig(
        codec=codec,
        backbone=backbone,
        letters=Hunyuan15TextConfig(words, 1 if image else 0),
        pictured=1.0 if image else 0.0,
        shift=_said(folder / "scheduler" / "scheduler_config.json", "shift", Positive, 5.0),
        guidance=_said(folder / "guider" / "guider_config.json", "guidance_scale", float, 6.0),
        frames=121,
        size=SIZES.get(side, SIZES[640]),
        fps=24.0,
        steps=50,
    )


def _said(path: Path, name: str, kind: Any, otherwise: Any) -> Any:
    """A value of a config, or what is usual if there is none."""
    given = read_json(path, dict[str, Any], mend=AGAIN) if path.is_file() else {}
    return conform(kind, given.get(name, otherwise), f"'{path}': {name}")
