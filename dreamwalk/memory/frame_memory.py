"""A memory of frames: tokens attend to frames of a bank, told apart by where and when they were seen.

WorldMem (arXiv 2504.12369), section 3: units of latent frame, camera and time are kept, a few are recalled
for each frame, and memory blocks of the backbone attend to their tokens (`backbones/memory_blocks.py`).

    paper's word             our word
    memory unit              `Unit` of a `FrameBank`
    memory retrieval         `memory/retrieval.py`
    state embedding          `memory/encodings.py`
    memory block             `MemoryBlock`; keys and values are made here, once a frame

Recalled tokens are finer than those of the trunk, for they cost it nothing, and are one linear map of pixels:
they need no passes of their own through the trunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from einops import reduce
from torch import Tensor

from dreamwalk.backbones.frame_backbone import Recalled
from dreamwalk.backbones.memory_blocks import MemoryBlocksConfig
from dreamwalk.clip import Clip, require_past
from dreamwalk.codecs.codec import Codec
from dreamwalk.codecs.rgbd import codec_input, depth_of
from dreamwalk.errors import UserError
from dreamwalk.layers.precision import float32_arithmetic
from dreamwalk.memory import encodings
from dreamwalk.memory.bank import FrameBank
from dreamwalk.memory.contract import (
    CameraState,
    FinishedFrame,
    Memory,
    Recollection,
    TokenSizes,
    Trainee,
    require_poses,
)
from dreamwalk.memory.encodings import Encoding
from dreamwalk.memory.frustum import Cameras
from dreamwalk.memory.kinematics import WalkedMemory
from dreamwalk.memory.memory_tokens import MemoryTokens
from dreamwalk.memory.session_rows import KeptFramesConfig, SessionBanks, saved_banks
from dreamwalk.memory.units import KeptTokens, RecalledUnits, Targets
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.validation import Positive, Share

LEAST = 0.02
"""Share of a clip that a past frame shows at least, when it is drawn by that."""


@dataclass(frozen=True)
class BankConfig(KeptFramesConfig):
    """What a memory of frames keeps, how recalled frames become keys and values, and how that is trained.

    Candidates are found by their views alone; of them `frames` are shown that cover most, by their depth."""

    encoding: Encoding = "projected"
    """What tells keys where they are."""
    split: int = 2
    """Recalled tokens down and across each token of the trunk."""
    every: int = 2
    """A memory block follows every so manieth block of the trunk."""
    guidance: Positive = 1.0
    """Scale of guidance over what is recalled when sampling, with a pass more a step; 1 for none."""
    empty_prob: Share = 0.15
    """Probability of training a clip on an empty bank, so that rooms are also made from nothing."""
    dreamed_prob: Share = 0.5
    """Probability of a recalled frame that is as the system's own are: with noise, and at a wrong depth."""
    latent_noise: Positive = 0.3
    """Largest std of that noise."""
    depth_noise: Positive = 0.03
    """Std of the logarithm of the factor on that depth."""

    def build(self, sizes: TokenSizes) -> BankMemory:
        """The memory; UserError for frames without depth, and sizes that do not go together."""
        if sizes.image_channels != 4:
            raise UserError(
                "a bank of frames is recalled by their depth, and this codec has none: take one of RGB-D, as "
                "`worldmem.doom` does"
            )
        if not 1 <= self.every <= sizes.depth:
            raise UserError(
                f"memory blocks follow every 1st to {sizes.depth}th block, not every {self.every}th"
            )
        if self.split < 1 or sizes.stride % self.split:
            raise UserError(f"a token of {sizes.stride} pixels does not divide into {self.split} parts")
        if self.retrieval.count < self.frames:
            raise UserError(
                f"of {self.retrieval.count} candidates {self.frames} frames cannot be recalled: set "
                f"`retrieval.count` to {self.frames} or more"
            )
        return BankMemory(self, sizes)


class BankMemory(WalkedMemory):
    """Recalls frames for memory blocks."""

    keeps_pixels = True

    def __init__(self, config: BankConfig, sizes: TokenSizes) -> None:
        super().__init__(sizes.actions)
        self.config, self.sizes = config, sizes
        self.tokens = MemoryTokens(config, sizes)
        self.memory_blocks = MemoryBlocksConfig(config.every, self.tokens.placed)
        self.guidance = config.guidance

    @property
    def blank(self) -> Recalled:
        return self.tokens.blank

    def begin(self) -> Memory:
        return Banks(self)

    @torch.inference_mode()
    def show(self, memory: Memory, clip: Clip, latents: Tensor) -> None:
        camera = CameraState.of_clip(clip, 0)
        if camera is not None and clip.depth is not None:
            rgbd = codec_input(clip, 4)[:, 0]
            memory.write(FinishedFrame(latents[:, 0], clip.actions[:, 0], camera, 0, rgbd, dreamed=False))

    def open(self, folder: Path, *, rows: int) -> Memory:
        return Banks(self, saved_banks(self, folder, rows, next(self.parameters()).device))

    def to_inputs(self, found: Recollection, codec: Codec) -> Recalled:
        if found.units is None:
            return Recalled()
        latents, make = found.units[0].latents, partial(self._plain, codec)
        kept = found.kept if latents.device.type == "cpu" and not torch.is_grad_enabled() else None
        plain = make(latents) if kept is None else kept.of(latents, make)
        return self.tokens(plain, *found.units).each(Tensor.contiguous)  # once, and not for every pass

    def _plain(self, codec: Codec, latents: Tensor) -> tuple[Tensor, Tensor]:
        return self.tokens.plain(codec.decode(latents))

    def recalled_of_clip(
        self, clip: Clip, x: Tensor, generator: KeyedGenerator, *, system: Trainee
    ) -> tuple[Recalled, dict[str, Tensor]]:
        """All frames of a clip recall the same frames of its past, drawn by how much they show of it."""
        targets = Targets(_cameras(clip), _times(clip))
        units = self._units_of(clip, targets, generator, system.codec)
        return self.tokens(self._plain(system.codec, units.latents), units, targets), {}

    @torch.no_grad()
    @float32_arithmetic()
    def _units_of(
        self, clip: Clip, targets: Targets, generator: KeyedGenerator, codec: Codec
    ) -> RecalledUnits:
        past, config = require_past(clip), self.config
        n, empty, dream = len(past), generator.uniform(1), generator.uniform(len(past))
        shake, noise = generator.uniform(n), generator.normal(n, *self.sizes.latent)
        factors, chance = (config.depth_noise * generator.normal(n)).exp(), generator.uniform(n)
        dreamed = dream < config.dreamed_prob
        latents = codec.encode(codec_input(past, codec.image_channels))
        latents = latents + (dreamed * shake * config.latent_noise)[..., None, None, None] * noise
        depth = coarse_depth(codec.decode(latents)[:, :, 3], self.tokens.grid)
        depth = torch.where(dreamed[..., None, None], depth * factors[..., None, None], depth)
        kept = (empty >= config.empty_prob).expand(-1, n)
        units = RecalledUnits(latents, depth, _cameras(past), _times(past), dreamed, kept)
        if n <= config.frames:
            return units
        shares = self.shown(units, targets).float().mean((1, 3))
        # Gumbel noise: draws without putting back, by shares that never are quite zero
        lucky = (shares + LEAST).log() - (-chance.clamp(1e-6, 1 - 1e-6).log()).log()
        return units.pick(lucky.topk(config.frames, 1).indices.sort(1).values)

    @float32_arithmetic()
    def shown(self, units: RecalledUnits, targets: Targets) -> Tensor:
        """Which cells of each target each unit shows, in front of what the others show: bool
        `(b, t, k, cells)`."""
        n = self.tokens.grid[0] * self.tokens.grid[1]
        points = encodings.cell_points(units.cameras, units.depth).flatten(1, 2)
        there = units.valid.repeat_interleave(n, 1)
        found = encodings.landing(points, there, targets.cameras, self.sizes.grid, finer=self.config.split)
        cell, visible = (part.unflatten(2, (-1, n)) for part in (found.cell, found.visible))
        counts = torch.zeros(cell.shape, device=cell.device).scatter_add_(3, cell, visible.float())
        return counts > 0

    def covering(self, units: RecalledUnits, target: Targets, count: int) -> tuple[Tensor, Tensor]:
        """Indices `(b, count)` of units that together show most of a target, the best of what is left one
        after the other, the first of equal ones; and the share of the target that each adds. Dreamed ones
        count only where no true one shows anything."""
        shown, picks, shares = self.shown(units, target)[:, 0], [], []
        dreamed = units.dreamed[..., None]
        shown = shown & ~(dreamed & (shown & ~dreamed).any(1, keepdim=True))
        gone = units.valid.long() - 1
        for _ in range(count):
            pick = (shown.sum(2) + gone).argmax(1, keepdim=True)
            picks.append(pick)
            shares.append(shown.float().mean(2).gather(1, pick))
            gone.scatter_(1, pick, -2)
            shown = shown & ~shown.take_along_dim(pick[..., None], 1)
        return torch.cat(picks, 1), torch.cat(shares, 1)


class Banks(SessionBanks):
    """What a session has stored: a bank of frames with depth a row."""

    model: BankMemory

    def __init__(self, model: BankMemory, rows: tuple[FrameBank, ...] = ()) -> None:
        super().__init__(model, rows)
        self.kept = KeptTokens()

    def write(self, frame: FinishedFrame) -> None:
        if frame.camera is not None and frame.rgbd is not None:
            depth = coarse_depth(frame.rgbd[:, 3].float(), self.model.tokens.grid)
            self.keep(frame, frame.camera, depth)

    def recall(self, camera: CameraState | None, time: int) -> Recollection:
        if camera is None:
            return Recollection()
        candidates = self.candidates(camera, time)
        cameras = Cameras(camera.pose[:, None], camera.intrinsics[:, None], self.model.sizes.pixels)
        times = torch.full((len(camera.pose), 1), time, device=camera.pose.device)
        wanted = Targets(cameras, times)
        if candidates is None:
            self.recalled = None
            return Recollection(units=(self._nothing(camera), wanted))
        self.picked, self.shares = self.model.covering(candidates, wanted, self.model.config.frames)
        self.recalled = candidates.pick(self.picked)
        return Recollection(units=(self.recalled, wanted), kept=self.kept)

    def _nothing(self, camera: CameraState) -> RecalledUnits:
        """Nothing, of the size that all recollections have."""
        (b, k), sizes = (len(camera.pose), self.model.config.frames), self.model.sizes
        blank = partial(torch.zeros, device=camera.pose.device)
        pose, matrix = (part[:, None].expand(-1, k, -1, -1) for part in (camera.pose, camera.intrinsics))
        flags = blank(b, k, dtype=torch.bool)
        depth, time = blank(b, k, *self.model.tokens.grid), blank(b, k, dtype=torch.int64)
        cameras = Cameras(pose, matrix, sizes.pixels)
        return RecalledUnits(blank(b, k, *sizes.latent), depth, cameras, time, flags, flags)


def coarse_depth(channel: Tensor, grid: tuple[int, int]) -> Tensor:
    """Planar depth of the cells of a grid `(.., p, q)` from the channel of depth of frames `(.., h, w)`."""
    h, w = channel.shape[-2] // grid[0], channel.shape[-1] // grid[1]
    return depth_of(reduce(channel, "... (p h) (q w) -> ... p q", "mean", h=h, w=w))


def _cameras(clip: Clip) -> Cameras:
    poses, intrinsics = require_poses(clip)
    return Cameras(poses.float(), intrinsics.float(), (clip.video.shape[-2], clip.video.shape[-1]))


def _times(clip: Clip) -> Tensor:
    assert clip.times is not None
    return clip.times
