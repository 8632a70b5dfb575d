"""Words become a video: the same words from several seeds, side by side in an animated picture.

python examples/06_words_to_video.py --prompt "walk backwards in a red room"
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from PIL import Image

import dreamwalk
from dreamwalk.systems.clip_request import ClipRequest


@dataclass(frozen=True)
class Options:
    """What is to be seen, and where it goes."""

    prompt: str = "walk through a brick hall, then turn left to a torch"
    system: str = "moviegen.doom"
    """Shipped weights, a weight file or a run folder."""
    out: Path = Path("words.gif")
    clips: int = 2
    frames: int | None = None
    """Default: as many as the system is used to."""
    steps: int = 20
    seed: int = 0


def main(options: Options) -> None:
    system = dreamwalk.load(options.system)
    request = ClipRequest(frames=options.frames, steps=options.steps, seed=options.seed)
    clips = system.sample([options.prompt] * options.clips, request=request)  # uint8 (b, t, h, w, 3)
    film = torch.cat(list(clips), dim=2).numpy()
    pictures = [Image.fromarray(frame) for frame in film]
    pictures[0].save(
        options.out, save_all=True, append_images=pictures[1:], duration=1000 / system.config.fps, loop=0
    )
    print(f"{len(clips)} clips of {clips.shape[1]} frames: {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options))
