"""Clouds of points for training: what a cloud would show in every frame of every clip of a batch, at once.

Each clip comes with earlier frames of its walk. For each of its frames a cloud is made of some frames before
it, and drawn from where it stands: of none, so that rooms are also made from nothing; of those of before the
clip, as after a long way; or of all. In some of the clips the frames from a drawn one on are as a session's
own: coded, shaken and decoded, with a depth that is wrong by a factor.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dreamwalk.clip import Clip, require_past
from dreamwalk.codecs.codec import Codec
from dreamwalk.codecs.rgbd import codec_input, depth_channel, depth_of
from dreamwalk.layers.precision import float32_arithmetic
from dreamwalk.memory.contract import require_poses
from dreamwalk.memory.depth_alignment import depth_edges
from dreamwalk.memory.frame_points import EDGES, FAR
from dreamwalk.memory.splatting import PointFrames, Rendering, render_frames
from dreamwalk.schedules.generator import KeyedGenerator

if TYPE_CHECKING:
    from dreamwalk.memory.points import PointsConfig


@dataclass(frozen=True)
class ClipClouds:
    """The frames of which the clouds of a batch of clips are made, `n` a clip, and which each cloud holds."""

    rgbd: Tensor
    """`(b, n, 4, h, w)`: `n - t` earlier frames, then those of the clip."""
    world_from_camera: Tensor
    """`(b, n, 4, 4)`."""
    intrinsics: Tensor
    """`(b, n, 3, 3)`, in pixels."""
    dreamed: Tensor
    """Which frames are as a session's own, bool `(b, n)`."""
    held: Tensor
    """Which frames the cloud of each frame of the clip holds, bool `(b, t, n)`."""

    @classmethod
    @torch.no_grad()
    @float32_arithmetic()
    def of(cls, clip: Clip, generator: KeyedGenerator, codec: Codec, *, config: PointsConfig) -> ClipClouds:
        """Draw clouds for a batched clip with a past and depth."""
        frames, past = with_past(clip)
        poses, intrinsics = require_poses(frames)
        n, (_, down, across) = poses.shape[1], codec.stride
        size = clip.video.shape[-2] // down, clip.video.shape[-1] // across
        kind, count, dream, cut, shake = (generator.uniform(1) for _ in range(5))
        noise = generator.normal(n, codec.channels, *size)
        factors = (config.depth_noise * generator.normal(n)).exp()
        at = torch.arange(n, device=poses.device)
        first = torch.where(dream < config.dreamed_prob, 1 + (cut * (n - 1)).int(), n)
        start, kind = (count * past).int()[..., None], (kind - config.empty_prob)[..., None]
        end = torch.where(kind < config.older_prob, past, at[past:, None])
        held = (kind >= 0) & (at >= start) & (at < end)
        truth = cls(codec_input(frames, 4), poses, intrinsics, at >= first, held)
        latents = codec.encode(truth.rgbd) + shake[..., None, None, None] * config.latent_noise * noise
        rgb, channel = codec.decode(latents).split([3, 1], 2)
        channel = depth_channel(depth_of(channel) * factors[..., None, None, None])
        return truth.with_own(torch.cat([rgb, channel], 2))

    def with_own(self, rgbd: Tensor) -> ClipClouds:
        """With frames `(b, k, 4, h, w)` in place of those of the last `k` that count as dreamed."""
        k = rgbd.shape[1]
        mixed = torch.where(self.dreamed[:, -k:, None, None, None], rgbd, self.rgbd[:, -k:])
        return replace(self, rgbd=torch.cat([self.rgbd[:, :-k], mixed], 1))

    @torch.no_grad()
    def render(self) -> Rendering:
        """Every frame of every clip as its cloud would draw it, `(b t, ..)`."""
        b = len(self.held)
        if self.rgbd.device.type != "cpu":
            return self._rendered(slice(b))
        # The operations are too small to be worth sharing among threads: a row a thread is twice as fast.
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return Rendering.cat(list(pool.map(lambda row: self._rendered(slice(row, row + 1)), range(b))))

    def _rendered(self, rows: slice) -> Rendering:
        rgbd, t = self.rgbd[rows], self.held.shape[1]
        depth = depth_of(rgbd[:, :, 3])
        depth = torch.where(depth > 0, depth, FAR)
        kept = ~depth_edges(depth, EDGES)
        poses, intrinsics = self.world_from_camera[rows], self.intrinsics[rows]
        frames = PointFrames(rgbd[:, :, :3], depth, kept, poses, intrinsics, self.dreamed[rows])
        return render_frames(frames, self.held[rows], poses[:, -t:], intrinsics=intrinsics[:, -t:])


def with_past(clip: Clip) -> tuple[Clip, int]:
    """A batched clip behind its past, and how many frames that has; UserError without a past."""
    past = require_past(clip)

    def both(name: str) -> Tensor | None:
        pair = getattr(past, name), getattr(clip, name)
        return None if None in pair else torch.cat(pair, 1)

    video = torch.cat([past.video, clip.video], 1)
    frames = Clip(
        video, depth=both("depth"), world_from_camera=both("world_from_camera"), intrinsics=both("intrinsics")
    )
    return frames, len(past)
