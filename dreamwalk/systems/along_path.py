"""What is known of a clip along a camera path, and how clips with depth tell it to who learns from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from dreamwalk.clip import Clip
from dreamwalk.codecs.rgbd_rows import DepthRange, Packing
from dreamwalk.errors import UserError
from dreamwalk.memory.clip_clouds import with_past
from dreamwalk.memory.contract import require_poses
from dreamwalk.memory.frame_points import FAR
from dreamwalk.memory.splatting import PointFrames, Rendering, render_frames
from dreamwalk.schedules.clip_plans import together
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems.clip_generator import ClipConfig, ClipGenerator
from dreamwalk.systems.conditionings import Canvas, ClipStart, Conditioning, ImageMixedNoise

if TYPE_CHECKING:
    from dreamwalk.systems.voyager import Voyager, VoyagerConfig

SEEN = 0.1
"""Coverage of a rendered pixel from which it is known; less is filled in from beside."""


@dataclass(frozen=True, eq=False)
class AlongPath(Conditioning):
    """What is known of a clip along a camera path: `t` frames, of which each may be known in part."""

    picture: Tensor
    """The first frame in [-1, 1], `(b or 1, 3, h, w)`."""
    picture_depth: Tensor
    """Its planar depth in world units, 0 for the sky, `(b or 1, h, w)`."""
    rgb: Tensor
    """Rendered colours in [-1, 1], `(b or 1, t, 3, h, w)`; anything where nothing is known."""
    depth: Tensor
    """Rendered planar depth in world units, 0 for the sky, `(b or 1, t, h, w)`."""
    known: Tensor
    """Which pixels are rendered, bool `(b or 1, t, h, w)`."""
    depth_range: DepthRange | None = None
    """What depth is coded in, for paths that are to share it; None: the range of all that is known here."""
    of_image = True

    def ranged(self, headroom: float) -> AlongPath:
        """The path with the range that its depth is coded in; UserError where no depth is known."""
        if self.depth_range is not None:
            return self
        depth = torch.cat([self.picture_depth[:, None], self.depth * self.known], dim=1)
        return replace(self, depth_range=DepthRange.of(depth, headroom=headroom))

    def first(self, packing: Packing) -> Tensor:
        """The first frame of a ranged path as the codec sees it, `(b or 1, 1, c, h', w')`."""
        assert self.depth_range is not None
        return packing.join(self.picture, self.depth_range.code(self.picture_depth))[:, None]

    def partial(self, packing: Packing) -> Tensor:
        """What is known of all frames of a ranged path as the codec sees it, `(b or 1, t, c, h', w')`."""
        assert self.depth_range is not None
        code = torch.where(self.known, self.depth_range.code(self.depth), -1.0)
        return packing.join(torch.where(self.known[:, :, None], self.rgb, -1.0), code)

    def rendering(self, rows: int, first: int, *, device: torch.device) -> Rendering:
        """What is known of the frames from `first` on, for the pixels of `rows` clips: `(rows t, ..)`."""

        def told(x: Tensor) -> Tensor:
            x = (x * (self.known if x.ndim == 4 else self.known[:, :, None]))[:, first:]
            return x.expand(rows, *x.shape[1:]).flatten(0, 1).to(device)

        mask = told(torch.ones_like(self.depth))
        return Rendering(told(self.rgb), told(torch.where(self.depth > 0, self.depth, FAR)), mask, 0 * mask)

    def extent(self, config: ClipConfig) -> tuple[int, tuple[int, int]]:
        config = cast("VoyagerConfig", config)
        h, w = self.picture.shape[-2:]
        return self.rgb.shape[1] - config.discard_frames, config.packing.size((h, w))

    def discard_frames(self, config: ClipConfig) -> int:
        return config.discard_frames

    def check(self, config: ClipConfig, frames: int, size: tuple[int, int]) -> None:
        super().check(config, frames, size)
        b, t, *_ = self.rgb.shape
        (h, w), cut = self.picture.shape[-2:], config.discard_frames
        wanted = {"picture_depth": (h, w), "rgb": (t, 3, h, w), "depth": (t, h, w), "known": (t, h, w)}
        for name, shape in wanted.items():
            found = tuple(getattr(self, name).shape)
            if found[1:] != shape:
                raise UserError(f"`{name}` of a path is {(b, *shape)} for its picture, not {found}")
        if self.extent(config) != (frames, size) or frames < 1:
            raise UserError(
                f"a path of {t} frames of {h}x{w} makes a clip of {t - cut}: give it more than {cut}, and "
                "leave `frames` and `size` to it"
            )

    def start(self, system: ClipGenerator, canvas: Canvas) -> ClipStart:
        cond = cast("Voyager", system).path_channels(self).expand(canvas.shape[0], -1, -1, -1, -1)
        first, share = cond[:, 0, : canvas.shape[2]], system.config.image_mix
        noise = ImageMixedNoise(canvas.noise, first, share)
        return ClipStart(together(canvas.sigmas, canvas.frames), noise, cond=cond)


@torch.no_grad()
def rendered_from_first(clip: Clip) -> AlongPath:
    """What a batched clip with depth and poses shows of its first frame in all frames; UserError without."""
    b, t = clip.video.shape[:2]
    return _rendered(clip, torch.arange(t).expand(b, -1) == 0, t)


@torch.no_grad()
def rendered_from_some(clip: Clip, generator: KeyedGenerator) -> AlongPath:
    """The same of its first frame and, in every other clip, of some of its past: a cache that has grown."""
    if clip.past is None:
        return rendered_from_first(clip)
    (frames, past), t = with_past(clip), len(clip)
    chance, drawn = generator.uniform(1), generator.uniform(past + t)
    at = torch.arange(past + t, device=drawn.device)
    return _rendered(frames, (at == past) | ((at < past) & (drawn < 2 * chance - 1)), t)


def _rendered(frames: Clip, held: Tensor, t: int) -> AlongPath:
    """What the points of those frames that are `held` `(b, n)` show in the last `t`."""
    poses, intrinsics = require_poses(frames)
    if frames.depth is None:
        raise UserError("these data have no depth, of which voyager makes its points: collect clips with it")
    rgb, depth = frames.video.float() / 127.5 - 1, torch.where(frames.depth > 0, frames.depth, FAR)
    held = held.to(rgb.device)
    points = PointFrames(rgb, depth, depth > 0, poses, intrinsics, torch.zeros_like(held))
    pairs, cameras = held[:, None].expand(-1, t, -1), (poses[:, -t:], intrinsics[:, -t:])
    view = render_frames(points, pairs, cameras[0], intrinsics=cameras[1])
    seen, known, far = (x.unflatten(0, (-1, t)) for x in (view.rgb, view.mask > SEEN, view.depth > FAR / 2))
    shown = view.depth.unflatten(0, (-1, t)).masked_fill(far, 0)
    return AlongPath(rgb[:, -t], frames.depth[:, -t], seen, shown, known)
