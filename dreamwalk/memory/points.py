"""A memory of points: the dream is shown what its cloud looks like from where the camera stands.

Voyager's world cache (arXiv 2506.04225, section 4.3) frame by frame. Every frame is written into a cloud as
RGB-D; for the next one the cloud is rendered, coded by the system's own codec, and given to the backbone
twice: as features of its tokens, and through a linear skip as a guess of the clean latents, so that a surface
that is seen again is copied, not dreamed again. Where the cloud is empty both say so, cell by cell.

    paper's word           our word
    world cache            `PointCloud`
    partial RGB, depth     rendering
    mask                   `Rendering.mask`, 4x4 cells a token
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, max_pool2d

from dreamwalk.backbones.frame_backbone import Recalled
from dreamwalk.clip import Clip
from dreamwalk.codecs.codec import Codec
from dreamwalk.codecs.rgbd import codec_input, depth_channel, depth_of
from dreamwalk.errors import UserError
from dreamwalk.memory.contract import (
    CameraState,
    FinishedFrame,
    LatentError,
    Memory,
    MemoryModel,
    Recollection,
    TokenSizes,
    require_poses,
)
from dreamwalk.memory.splatting import Points, Rendering, render
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.validation import Positive, Share

CELLS = 4
"""Cells of a token down and across in which coverage is told: finer than a token, for edges pass through."""
FAR = 20_000.0
"""World units at which the sky is drawn, so that it comes back too."""
EDGE = 1.35
"""Ratio of neighbouring disparities from which a pixel is an edge, and between two surfaces."""


@dataclass(frozen=True)
class PointsConfig:
    """How a memory of points is trained."""

    empty_prob: Share = 0.2
    """Probability of training a clip on an empty cloud, so that rooms are also made from nothing."""
    older_prob: Share = 0.4
    """Probability of a cloud that holds only frames of before the clip, as after a long way."""
    dreamed_prob: Share = 0.5
    """Probability of a cloud of which some frames are as the system's own are: coded, shaken and decoded."""
    latent_noise: Positive = 0.3
    """Largest std of what shakes them."""
    depth_noise: Positive = 0.03
    """Std of the logarithm of a factor on the depths of each dreamed frame."""

    def build(self, sizes: TokenSizes) -> PointsMemory:
        return PointsMemory(self, sizes)


class PointsMemory(MemoryModel):
    """How a rendering reaches the backbone."""

    keeps_pixels = True

    def begin(self) -> Memory:
        return _Clouds()

    def __init__(self, config: PointsConfig, sizes: TokenSizes) -> None:
        super().__init__()
        self.config, self.sizes = config, sizes
        code = sizes.channels * sizes.patch**2
        self.embed = nn.Linear(code + 2 * CELLS**2, sizes.width)
        self.skip = nn.Linear(code + 2 * CELLS**2, code)
        with torch.no_grad():
            self.skip.weight.copy_(torch.eye(code, code + 2 * CELLS**2) * 0.7)
            self.skip.bias.zero_()

    def to_inputs(self, found: Recollection, codec: Codec) -> Recalled:
        if found.rendering is None:
            return Recalled()
        view, (h, w), p = found.rendering, self.sizes.grid, self.sizes.patch
        rgbd = torch.cat([view.rgb, depth_channel(view.depth)[:, None]], 1)
        code = rearrange(codec.encode(rgbd[:, None]), "b t c (h p) (w q) -> b t (h w) (c p q)", p=p, q=p)
        told = [adaptive_avg_pool2d(x, (h * CELLS, w * CELLS)) for x in (view.mask, view.dreamed)]
        cells = [rearrange(x, "b (h i) (w j) -> b 1 (h w) (i j)", h=h, w=w) for x in told]
        tokens = torch.cat([code, *cells], -1)
        guess = rearrange(self.skip(tokens), "b t (h w) (c p q) -> b t c (h p) (w q)", h=h, w=w, p=p, q=p)
        return Recalled(self.embed(tokens), guess)

    def recalled_of_clip(
        self, clip: Clip, x: Tensor, generator: KeyedGenerator, *, codec: Codec, error: LatentError
    ) -> tuple[Recalled, dict[str, Tensor]]:
        """Frame `i` recalls what the earlier frames of the clip and those of its past show of it."""
        b, t = x.shape[:2]
        rendering = self.render_clip(clip, generator, codec)
        recalled = self.to_inputs(Recollection(rendering=rendering), codec)
        return recalled.each(lambda part: part.view(b, t, *part.shape[2:])), {}

    @torch.no_grad()
    def render_clip(self, clip: Clip, generator: KeyedGenerator, codec: Codec) -> Rendering:
        """Every frame of every clip as its cloud would draw it, `(b t, ..)`."""
        config, (frames, m) = self.config, _with_past(clip)
        poses, intrinsics = require_poses(frames)
        n, size = poses.shape[1], (clip.video.shape[-2], clip.video.shape[-1])
        kinds, counts, dreams, cuts, shakes = (generator.uniform(1)[:, 0].tolist() for _ in range(5))
        noise = generator.normal(
            n, codec.channels, *(s // p for s, p in zip(size, codec.stride[1:], strict=True))
        )
        scales, rgbd = (config.depth_noise * generator.normal(n)).exp(), codec_input(frames, 4)
        firsts = [
            1 + int(cut * (n - 1)) if dream < config.dreamed_prob else n
            for cut, dream in zip(cuts, dreams, strict=True)
        ]
        for row, (first, shake) in enumerate(zip(firsts, shakes, strict=True)):
            if first < n:
                latents = (
                    codec.encode(rgbd[row, None, first:]) + shake * config.latent_noise * noise[row, first:]
                )
                rgbd[row, first:] = codec.decode(latents)[0]
                rgbd[row, first:, 3] = depth_channel(
                    depth_of(rgbd[row, first:, 3]) * scales[row, first:, None, None]
                )

        def views(row: int) -> Rendering:
            cameras = zip(rgbd[row], poses[row], intrinsics[row], strict=True)
            parts = [
                lift(frame, pose, matrix, time=i, dreamed=i >= firsts[row])
                for i, (frame, pose, matrix) in enumerate(cameras)
            ]
            start, kind = int(counts[row] * m), kinds[row] - config.empty_prob
            # An empty cloud, one of before the clip, or one that every frame goes into.
            ends = [start if kind < 0 else m if kind < config.older_prob else i for i in range(m, n)]
            clouds = [joined(parts[start:end], like=parts[0]) for end in ends]
            return render(clouds, poses[row, m:], intrinsics=intrinsics[row, m:], size=size)

        # The operations are too small to be worth sharing among threads: a row a thread is twice as fast.
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            rows = list(pool.map(views, range(len(rgbd))))
        names = Rendering.__dataclass_fields__
        return Rendering(*(torch.cat([getattr(view, name) for view in rows]) for name in names))


def _with_past(clip: Clip) -> tuple[Clip, int]:
    """A batched clip behind its past, and how many frames that has; UserError without a past."""
    past = clip.past
    if past is None:
        raise UserError("a memory learns from what came before a clip: give `--past`, for example 8")

    def both(name: str) -> Tensor | None:
        pair = getattr(past, name), getattr(clip, name)
        return None if None in pair else torch.cat(pair, 1)

    video = torch.cat([past.video, clip.video], 1)
    frames = Clip(
        video, depth=both("depth"), world_from_camera=both("world_from_camera"), intrinsics=both("intrinsics")
    )
    return frames, len(past)


class _Clouds(Memory):
    """The points of a session, a cloud a row; all of them are kept."""

    def __init__(self, rows: tuple[list[Points], ...] = ()) -> None:
        self.rows = rows

    def write(self, frame: FinishedFrame) -> None:
        if frame.camera is None or frame.rgbd is None:
            return
        camera, rows = frame.camera, self.rows or tuple([] for _ in frame.rgbd)
        for i, row in enumerate(rows):
            pose, matrix = camera.pose[i], camera.intrinsics[i]
            row.append(lift(frame.rgbd[i], pose, matrix, time=frame.time, dreamed=frame.dreamed))
        self.rows, self.size = rows, frame.rgbd.shape[-2:]

    def recall(self, camera: CameraState | None, time: int) -> Recollection:
        if camera is None or not self.rows:
            return Recollection()
        clouds = [joined(row, like=row[0]) for row in self.rows]
        size = self.size[0], self.size[1]
        return Recollection(rendering=render(clouds, camera.pose, intrinsics=camera.intrinsics, size=size))

    def clone(self) -> _Clouds:
        twin = _Clouds(tuple(list(row) for row in self.rows))
        twin.size = self.size
        return twin

    def to(self, device: torch.device | str) -> _Clouds:
        twin = self.clone()
        twin.rows = tuple([part.to(device) for part in row] for row in self.rows)
        return twin


@torch.no_grad()
def lift(rgbd: Tensor, world_from_camera: Tensor, intrinsics: Tensor, *, time: int, dreamed: bool) -> Points:
    """The points of the pixels of a frame `(4, h, w)` in [-1, 1], but for those on the edge of a surface."""
    h, w = rgbd.shape[-2:]
    rgb, depth = ((rgbd[:3].clamp(-1, 1) + 1) * 127.5).round().byte(), depth_of(rgbd[3])
    depth = torch.where(depth > 0, depth, FAR)
    near = max_pool2d(1 / depth[None], 3, 1, 1)[0]
    far = -max_pool2d(-1 / depth[None], 3, 1, 1)[0]
    kept = (near < EDGE * far).flatten().nonzero().squeeze(1)
    x, y = (torch.arange(side, device=depth.device) + 0.5 for side in (w, h))
    (fx, _, cx), (_, fy, cy) = intrinsics[0], intrinsics[1]
    local = torch.stack([(x - cx) / fx * depth, ((y - cy) / fy)[:, None] * depth, depth]).flatten(1)[:, kept]
    position = world_from_camera[:3, :3] @ local + world_from_camera[:3, 3:]
    times = torch.full_like(kept, time, dtype=torch.int32)
    layer = torch.full_like(kept, dreamed, dtype=torch.bool)
    return Points(position, rgb.flatten(1)[:, kept], (depth / fx).flatten()[kept], times, layer)


def joined(parts: list[Points], *, like: Points) -> Points:
    """All points in one cloud; none for no parts."""
    if not parts:
        return Points(*(getattr(like, name)[..., :0] for name in like.__dataclass_fields__))
    return Points(*(torch.cat([getattr(p, name) for p in parts], -1) for name in like.__dataclass_fields__))
