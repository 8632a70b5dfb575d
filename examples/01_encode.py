"""A codec there and back: fit the linear patch code on frames of the game, and see what it loses.

python examples/01_encode.py --channels 64
"""

from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
import tyro

import dreamwalk
from dreamwalk.codecs.patch import PatchCodec, PatchCodecConfig


@dataclass(frozen=True)
class Options:
    """How many frames to fit on, and how many numbers a patch of 16 x 16 pixels becomes."""

    channels: int = 64
    frames: int = 400


def main(options: Options) -> None:
    with closing(dreamwalk.make("dreamwalk/Doom-v0", disable_env_checker=True).unwrapped) as game:
        frames = np.stack([game.reset(seed=seed)[0] for seed in range(options.frames + 20)])
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float() / 127.5 - 1  # (b, t, 3, h, w)
    known, unseen = video[:, :-20], video[:, -20:]
    codec = PatchCodec(PatchCodecConfig(channels=options.channels, widths=()))
    codec.fit(known)
    with torch.inference_mode():
        latents = codec.encode(unseen)
        restored = codec.decode(latents)
    psnr = 10 * torch.log10(4 / (restored - unseen).square().mean())
    smaller = unseen.numel() / latents.numel()
    print(
        f"{tuple(unseen.shape)} -> {tuple(latents.shape)}, {smaller:.0f} times fewer numbers, {psnr:.1f} dB"
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
