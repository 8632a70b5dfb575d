"""A walk past a wall, with all that a memory of frames asks for."""

from dataclasses import replace

import torch

from dreamwalk.clip import Clip

SIZE = (32, 32)


def walk(frames: int = 12, *, past: bool = False, rows: int = 1) -> Clip:
    """A walk along x past random pictures of a wall 200 units away."""
    generator = torch.Generator().manual_seed(frames)
    pose = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 40], [0, 0, 0, 1]])
    poses = pose.repeat(rows, frames, 1, 1)
    poses[:, :, 0, 3] = torch.arange(frames) * 20.0
    intrinsics = torch.tensor([[16.0, 0, 16], [0, 16, 16], [0, 0, 1]]).repeat(rows, frames, 1, 1)
    video = torch.randint(0, 256, (rows, frames, 3, *SIZE), generator=generator, dtype=torch.uint8)
    depth, times = torch.full((rows, frames, *SIZE), 200.0), torch.arange(frames).repeat(rows, 1)
    clip = Clip(video, torch.zeros(rows, frames, 7), poses, intrinsics, depth, times=times)
    return replace(clip, past=walk(6, rows=rows)) if past else clip
