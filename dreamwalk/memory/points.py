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

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from dreamwalk.backbones.frame_backbone import Recalled
from dreamwalk.clip import Clip
from dreamwalk.codecs.codec import Codec
from dreamwalk.codecs.critic import Critic, CriticConfig, adversarial
from dreamwalk.codecs.rgbd import codec_input, depth_of
from dreamwalk.memory.clip_clouds import ClipClouds
from dreamwalk.memory.contract import CameraState, FinishedFrame, Memory, Recollection, TokenSizes, Trainee
from dreamwalk.memory.contradiction import CHANGES, otherwise
from dreamwalk.memory.kinematics import BodyConfig, WalkedMemory, stopped
from dreamwalk.memory.pixel_filter import PixelFilter, PixelFilterConfig
from dreamwalk.memory.point_cloud import CloudBudget, PointCloud
from dreamwalk.memory.session_rows import StoredRows
from dreamwalk.memory.splatting import Rendering
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.validation import Count, Positive, Share

CELLS = 4
"""Cells of a token down and across in which coverage is told: finer than a token, for edges pass through."""

LAST_PASS, CLEAN = (0.7, 1.0), 0.02
"""Noise levels from which the filter learns to show frames, those of the last pass of sampling; and that of
the frames before them."""
WITHIN = 128.0
"""How near what is true may change, in units."""
OWN = 0.3, 0.9
"""Noise levels from which frames are the network's own and still show the place that they should."""


@dataclass(frozen=True)
class PointsConfig:
    """What a memory of points keeps, who walks in it, and how it is trained."""

    budget: CloudBudget = field(default_factory=CloudBudget)
    body: BodyConfig = field(default_factory=BodyConfig)

    pixels: PixelFilterConfig | None = None
    """The filter of decoded frames; it is trained when the rest is."""
    critic: CriticConfig | None = None
    """A discriminator that is trained along with the filter."""
    adversarial: Positive = 0.05
    """Weight of its term."""
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
    changing: Count | None = None
    """Column of the action that puts things down and takes them away. For a while after it dreamed frames may
    change what is true near by; without it they never do."""
    own_frames: bool = False
    """Whether dreamed frames of the clip itself are what the network makes of its noisy latents."""

    def build(self, sizes: TokenSizes) -> PointsMemory:
        return PointsMemory(self, sizes)


class PointsMemory(WalkedMemory):
    """How a rendering reaches the backbone."""

    keeps_pixels = True

    def __init__(self, config: PointsConfig, sizes: TokenSizes) -> None:
        super().__init__(sizes.actions)
        self.pixels = PixelFilter(config.pixels) if config.pixels else None
        self.depth = PixelFilterConfig().build(3, 1) if config.pixels else None
        self.critic = Critic(config.critic) if config.pixels and config.critic else None
        self.config, self.sizes = config, sizes
        code = sizes.channels * sizes.patch**2
        self.embed = nn.Linear(code + 2 * CELLS**2, sizes.width)
        self.skip = nn.Linear(code + 2 * CELLS**2, code)
        # What an action puts down appears in one place of the frame, and rotary positions are only relative.
        self.position = nn.Parameter(torch.zeros(sizes.grid[0] * sizes.grid[1], sizes.width))
        with torch.no_grad():
            self.skip.weight.copy_(torch.eye(code, code + 2 * CELLS**2) * 0.7)
            self.skip.bias.zero_()

    def begin(self) -> Memory:
        return Clouds(self)

    @torch.inference_mode()
    def show(self, memory: Memory, clip: Clip, latents: Tensor) -> None:
        camera = CameraState.of_clip(clip, 0)
        if isinstance(memory, Clouds) and camera is not None and clip.depth is not None:
            frame, rgbd = latents[:, 0], codec_input(clip, 4)[:, 0]
            memory.write(FinishedFrame(frame, clip.actions[:, 0], camera, 0, rgbd, dreamed=False))

    def open(self, folder: Path, *, rows: int) -> Memory:
        device = self.embed.weight.device
        clouds = (PointCloud.open(folder / Clouds.file.format(i), device=device) for i in range(rows))
        return Clouds(self, tuple(clouds))

    def next_camera(self, camera: CameraState | None, action: Tensor, memory: Memory) -> CameraState | None:
        free = super().next_camera(camera, action, memory)
        if camera is None or free is None or not isinstance(memory, Clouds) or not memory.rows:
            return free
        body, steps = self.config.body, []
        for i, cloud in enumerate(memory.rows):
            at = camera.pose[i, :3, 3]
            near, before = cloud.near(at, body.reach), camera.displacement[i]
            steps.append(stopped(free.displacement[i], at, near, before=before, body=body))
        step, pose = torch.stack(steps), free.pose.clone()
        pose[:, :3, 3] = camera.pose[:, :3, 3] + step
        return replace(free, pose=pose, displacement=step)

    def to_inputs(self, found: Recollection, codec: Codec) -> Recalled:
        if found.rendering is None:
            return Recalled()
        view, (h, w), p = found.rendering, self.sizes.grid, self.sizes.patch
        code = rearrange(codec.encode(view.rgbd[:, None]), "b t c (h p) (w q) -> b t (h w) (c p q)", p=p, q=p)
        told = [adaptive_avg_pool2d(x, (h * CELLS, w * CELLS)) for x in (view.mask, view.dreamed)]
        cells = [rearrange(x, "b (h i) (w j) -> b 1 (h w) (i j)", h=h, w=w) for x in told]
        tokens = torch.cat([code, *cells], -1)
        guess = rearrange(self.skip(tokens), "b t (h w) (c p q) -> b t c (h p) (w q)", h=h, w=w, p=p, q=p)
        return Recalled(self.embed(tokens) + self.position, guess)

    def recalled_of_clip(
        self, clip: Clip, x: Tensor, generator: KeyedGenerator, *, system: Trainee
    ) -> tuple[Recalled, dict[str, Tensor]]:
        """Frame `i` recalls what the earlier frames of the clip and those of its past show of it."""
        b, t = x.shape[:2]
        clouds = ClipClouds.of(clip, generator, system.codec, config=self.config)
        rendering, recalled = self._recalled(clouds, system.codec)
        if self.pixels is None or self.depth is None:
            return recalled, {}
        if self.config.own_frames:
            with torch.no_grad():
                sigma = _between(OWN, generator.uniform(t))
                made = system.predicted(clip, x, sigma, recalled=recalled, generator=generator)
                own = self._shown(made, rendering, system.codec)
            rendering, recalled = self._recalled(clouds.with_own(own), system.codec)
        rows = torch.arange(b * t, device=x.device).view(b, t)[:, t // 2 :]
        truth, sigma = codec_input(clip, 4)[:, t // 2 :], _between(LAST_PASS, generator.uniform(t))
        # Behind a clean first half or more, as frames are sampled in turn.
        clean = torch.arange(t, device=x.device) < t * (0.5 + 0.5 * generator.uniform(1))
        sigma = sigma.masked_fill(clean, CLEAN)
        made = system.predicted(clip, x, sigma, recalled=recalled, generator=generator)
        shown = self._shown(made[:, t // 2 :], rendering.rows(rows.flatten()), system.codec)
        terms, pictures = self.pixel_loss(shown, truth), truth.flatten(0, 1)
        terms["depth"] = (self.depth(pictures[:, :3]) - pictures[:, 3:]).abs().mean()
        return recalled, terms

    def _recalled(self, clouds: ClipClouds, codec: Codec) -> tuple[Rendering, Recalled]:
        """What clouds look like to the frames of a batch of clips, `(b t, ..)`, and to the backbone."""
        rendering, (b, t) = clouds.render(), clouds.held.shape[:2]
        recalled = self.to_inputs(Recollection(rendering=rendering), codec)
        return rendering, recalled.each(lambda part: part.view(b, t, *part.shape[2:]))

    def _shown(self, x: Tensor, rendering: Rendering, codec: Codec) -> Tensor:
        """Latents `(b, t, ..)` as RGB-D frames, through the filter."""
        assert self.pixels is not None
        return self.pixels(codec.decode(x).flatten(0, 1), rendering).unflatten(0, x.shape[:2])

    def picture_depth(self, video: Tensor) -> Tensor | None:
        if self.depth is None:
            return None
        return depth_of(self.depth(video.flatten(0, 1))[:, 0].unflatten(0, video.shape[:2]))

    def pixel_loss(self, shown: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Terms of the loss of frames `(b, t, 4, h, w)`: absolute error, and the two of the critic."""
        terms = {"pixels": (shown - truth).abs().mean()}
        if self.critic is not None:
            verdict, terms["critic"] = adversarial(self.critic, truth[:, :, :3], shown[:, :, :3])
            terms["verdict"] = self.config.adversarial * verdict
        return terms

    def refine(self, rgbd: Tensor, found: Recollection, action: Tensor) -> Tensor:
        known = found.rendering
        if self.pixels is None or known is None:
            return rgbd
        if self.config.changing is not None:
            changed = action[:, self.config.changing] > 0.5
            if found.changed is not None:
                changed = changed | found.changed
            if changed.any():  # what was put down or taken away is not painted over with what was there
                denied = otherwise(depth_of(rgbd[:, 3].float()), known, reach=WITHIN)
                known = known.without(denied & changed[:, None, None])
        return self.pixels(rgbd, known)


class Clouds(StoredRows[PointCloud]):
    """What a session has stored: a cloud of points a row."""

    file = "cloud-{}.safetensors"
    highest = float("-inf")
    """The highest that the eyes have been, in world units."""

    def __init__(self, model: PointsMemory, rows: tuple[PointCloud, ...] = ()) -> None:
        self.model, self.rows = model, rows
        self.changed: Tensor | None = None
        """Time of the last action of each row that changed something, `(b,)`, if that is watched."""
        self.found: Rendering | None = None
        """What was recalled for the frame that is being made: it is not rendered again to be written."""

    def write(self, frame: FinishedFrame) -> None:
        camera, rgbd = frame.camera, frame.rgbd
        if camera is None or rgbd is None:
            return
        rgbd = rgbd.float()
        self.highest = max(self.highest, float(camera.pose[:, 2, 3].max()))
        self.rows = self.rows or tuple(PointCloud(self.model.config.budget, device=rgbd.device) for _ in rgbd)
        reach = self._reach(frame)
        for i, cloud in enumerate(self.rows):
            shot = rgbd[i, :3], depth_of(rgbd[i, 3]), camera.pose[i], camera.intrinsics[i]
            known = None if self.found is None else self.found.rows(torch.tensor([i], device=rgbd.device))
            cloud.insert(*shot, time=frame.time, dreamed=frame.dreamed, rendering=known, reach=reach[i])
        self.found = None

    def _changed(self, time: int) -> Tensor | None:
        """Whether something was changed a moment before a frame, bool `(b,)`; None if nothing ever was."""
        return None if self.changed is None else time - self.changed < CHANGES

    def _reach(self, frame: FinishedFrame) -> list[float]:
        """How near each row's frame may change what is true."""
        column, rows = self.model.config.changing, len(frame.action)
        if column is None:
            return [0.0] * rows
        before = frame.action.new_full((rows,), -CHANGES) if self.changed is None else self.changed
        self.changed = torch.where(frame.action[:, column] > 0.5, frame.time, before)
        return (WITHIN * (frame.time - self.changed < CHANGES)).tolist()

    def recall(self, camera: CameraState | None, time: int) -> Recollection:
        if camera is None:
            return Recollection()
        size = self.model.sizes.pixels
        if self.rows:
            cameras = zip(self.rows, camera.pose, camera.intrinsics, strict=True)
            self.found = Rendering.cat([cloud.render(*of, size=size) for cloud, *of in cameras])
        if self.found is None or not self.recalling:
            nothing = Rendering.empty(len(camera.pose), size, device=camera.pose.device)
            return Recollection(rendering=nothing)
        return Recollection(rendering=self.found, changed=self._changed(time))

    def _with(self, rows: Iterable[PointCloud]) -> Self:
        twin = type(self)(self.model, tuple(rows))
        twin.recalling, twin.highest, twin.changed = self.recalling, self.highest, self.changed
        return twin


def _between(bounds: tuple[float, float], share: Tensor) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * share
