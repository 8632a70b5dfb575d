"""The memory that the published WorldMem is played with (arXiv 2504.12369): frames of a bank, chosen by where
their cameras stood and when, for a backbone with a memory part of its own (`backbones/memory_stdit.py`).

The backbone reads them clean, at its least noise level, with an action of zeros, and the window anew beside
them for each frame: what frames of the window see of memory depends on what is recalled now. Nobody knows the
poses of a dream, so a small network tells the next one (`LatentPose`), or it is reckoned from the action.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from dreamwalk.memory.bank import FrameBank
from dreamwalk.memory.contract import (
    CameraState,
    FinishedFrame,
    Memory,
    MemoryModel,
    RecalledFrames,
    Recollection,
    TokenSizes,
)
from dreamwalk.memory.frustum import Cameras
from dreamwalk.memory.latent_pose import LatentPose, LatentPoseConfig, reckoned_pose
from dreamwalk.memory.retention import BankBudget
from dreamwalk.memory.retrieval import RetrievalConfig
from dreamwalk.memory.session_rows import KeptFramesConfig, SessionBanks, saved_banks
from dreamwalk.memory.units import Targets
from dreamwalk.validation import Count, Positive

FIELD = 105.0, 75.0
"""Degrees across and down of a view, by which frames are chosen, as published; the game's are 102 and 70."""


def released_retrieval() -> RetrievalConfig:
    """As the public code: 8 of all frames, by points up to 30 blocks away."""
    return RetrievalConfig(points=10_000, radius=30.0, reach=30.0, mode="released")


@dataclass(frozen=True)
class PosedBankConfig(KeptFramesConfig):
    """What is kept and recalled, and how the next pose is found."""

    frames: Count = 8
    budget: BankBudget = field(default_factory=lambda: BankBudget(place=2.0, radius=30.0))
    retrieval: RetrievalConfig = field(default_factory=released_retrieval)
    reread: bool = True
    """Whether the window is read anew for each frame, as published; else its frames keep what they saw of
    memory in their time, and a frame takes less."""
    pose: LatentPoseConfig | None = None
    """The network that tells the next pose; None where poses are reckoned."""
    walk_speed: Positive = 0.4317
    """Blocks that a key covers in a frame where poses are reckoned: the game's at 10 frames a second."""

    def build(self, sizes: TokenSizes) -> PosedBankMemory:
        """The memory, with fresh weights; UserError for a bank that has no room for the window."""
        return PosedBankMemory(self, sizes)


class PosedBankMemory(MemoryModel):
    """Recalls frames for the memory part of a backbone."""

    recalls_frames = one_by_one = True
    lens: Tensor
    """Intrinsics `(3, 3)` of views by which frames are chosen."""

    def __init__(self, config: PosedBankConfig, sizes: TokenSizes) -> None:
        super().__init__()
        budget = replace(config.budget, newest=sizes.window)  # which is read again, out of the bank
        retrieval = replace(config.retrieval, count=config.frames)
        self.config, self.sizes = replace(config, budget=budget, retrieval=retrieval), sizes
        height, width = sizes.pixels
        x, y = (1 / math.tan(math.radians(angle) / 2) / 2 for angle in FIELD)
        lens = [[x * width, 0, width / 2], [0, y * height, height / 2], [0, 0, 1]]
        self.register_buffer("lens", torch.tensor(lens), persistent=False)
        channels, actions = sizes.channels, sizes.actions
        net = config.pose
        self.pose = None if net is None else LatentPose(net, channels=channels, actions=actions)

    def begin(self) -> PosedBanks:
        return PosedBanks(self)

    def open(self, folder: Path, *, rows: int) -> PosedBanks:
        return PosedBanks(self, saved_banks(self, folder, rows, self.lens.device))

    def next_camera(self, camera: CameraState | None, action: Tensor, memory: Memory) -> CameraState | None:
        if camera is None or not isinstance(memory, PosedBanks) or not memory.rows:
            return None
        if self.pose is None:
            pose = reckoned_pose(camera.pose, action, speed=self.config.walk_speed)
        else:
            pose = self.pose.next_pose(memory.newest(1).latents[:, 0].float(), camera.pose, action)
        return replace(camera, pose=pose, displacement=pose[:, :3, 3] - camera.pose[:, :3, 3], action=action)


class PosedBanks(SessionBanks):
    """What a session has stored: a bank of frames a row."""

    model: PosedBankMemory

    def __init__(self, model: PosedBankMemory, rows: tuple[FrameBank, ...] = ()) -> None:
        super().__init__(model, rows)

    def write(self, frame: FinishedFrame) -> None:
        if frame.camera is not None:
            self.keep(frame, self._wide(frame.camera), None)

    def _wide(self, camera: CameraState) -> CameraState:
        """A camera with the field of view by which frames are chosen."""
        return replace(camera, intrinsics=self.model.lens.expand_as(camera.intrinsics))

    def newest(self, count: int) -> RecalledFrames:
        """The last frames that were shown."""
        rows = []
        for bank in self.rows:
            time = bank.cameras().time
            assert time is not None
            rows.append(bank.units(time.argsort()[-count:]))
        names = "latent", "action", "pose"
        latents, actions, poses = (torch.stack([getattr(row, name) for row in rows]) for name in names)
        return RecalledFrames(latents, actions, tuple(rows[0].time.tolist()), poses=poses)

    def recall(self, camera: CameraState | None, time: int) -> Recollection:
        self.recalled = None
        units = None if camera is None else self.candidates(self._wide(camera), time)
        if camera is None or units is None or not units.valid.any():
            return Recollection()
        times = torch.full((len(camera.pose), 1), time, device=camera.pose.device)
        cameras = Cameras(camera.pose[:, None], camera.intrinsics[:, None], self.model.sizes.pixels)
        wanted = Targets(cameras, times)
        self.picked = torch.arange(units.valid.shape[1], device=times.device).expand_as(units.valid)
        self.shares, self.recalled = torch.stack([one.overlap for one in self.found]), units
        window = self.newest(self.model.sizes.window) if self.model.config.reread else None
        return Recollection(units=(units, wanted), window=window)
