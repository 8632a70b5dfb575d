"""What a session has stored, row by row; and in banks of frames, what of it was recalled last."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from dreamwalk.memory.bank import FrameBank, Unit
from dreamwalk.memory.contract import CameraState, FinishedFrame, Memory, TokenSizes
from dreamwalk.memory.frustum import Cameras
from dreamwalk.memory.point_cloud import PointCloud
from dreamwalk.memory.retention import BankBudget
from dreamwalk.memory.retrieval import RetrievalConfig, Retrieved, retrieve
from dreamwalk.memory.units import RecalledUnits
from dreamwalk.validation import Count

OfRow = TypeVar("OfRow", FrameBank, PointCloud)


class StoredRows(Memory, Generic[OfRow]):
    """A memory that has a store for each row of its session."""

    file = ""
    """Of a row, in the folder of a session."""
    rows: tuple[OfRow, ...]

    def clone(self) -> Self:
        return self._with(row.clone() for row in self.rows)

    def to(self, device: torch.device | str) -> Self:
        return self._with(row.to(device) for row in self.rows)

    def save(self, folder: Path) -> None:
        for i, row in enumerate(self.rows):
            row.save(folder / self.file.format(i))

    def _with(self, rows: Iterable[OfRow]) -> Self:
        """The same with other rows, and nothing of what was recalled last."""
        raise NotImplementedError


@dataclass(frozen=True)
class KeptFramesConfig:
    """What is kept of the frames of a session, and what is recalled of it."""

    frames: Count = 4
    """Recalled for each frame."""
    budget: BankBudget = field(default_factory=BankBudget)
    retrieval: RetrievalConfig = field(default_factory=lambda: RetrievalConfig(count=16))
    """Of candidates for these frames."""


class BankModel(Protocol):
    """A memory model whose sessions keep frames."""

    @property
    def config(self) -> KeptFramesConfig: ...

    @property
    def sizes(self) -> TokenSizes: ...


class SessionBanks(StoredRows[FrameBank]):
    """A bank of frames a row. What is recalled of them, and how it is shown, its kinds say."""

    file = "bank-{}.safetensors"

    def __init__(self, model: BankModel, rows: tuple[FrameBank, ...] = ()) -> None:
        self.model, self.rows = model, rows
        self.found: tuple[Retrieved, ...] = ()
        """Candidates for the last frame."""
        self.picked: Tensor | None = None
        """Which of them were recalled, `(b, k)`."""
        self.shares: Tensor | None = None
        """Of that frame, the share that each of them shows, `(b, k)`."""
        self.recalled: RecalledUnits | None = None
        """Those frames, which the bank may have forgotten since; None where nothing was recalled."""

    def keep(self, frame: FinishedFrame, camera: CameraState, depth: Tensor | None) -> None:
        """Write a frame seen from `camera` into the banks, with coarse `depth` `(b, p, q)` where known."""
        size, device = self.model.sizes.pixels, frame.latents.device
        make = partial(FrameBank, self.model.config.budget, size=size, device=device)
        self.rows = self.rows or tuple(make() for _ in frame.latents)
        for i, bank in enumerate(self.rows):
            parts = frame.latents[i], frame.action[i], camera.pose[i], camera.intrinsics[i]
            bank.write(Unit(*parts, frame.time, frame.dreamed, None if depth is None else depth[i]))

    def candidates(self, camera: CameraState, time: int) -> RecalledUnits | None:
        """Those for the frame `time`, always as many; None where nothing is kept or told. Where there are
        fewer, the first of them, which are not valid, repeat in their place."""
        before, config = time - self.model.sizes.window, self.model.config.retrieval
        banks = self.rows if self.recalling else ()
        pose, lens, size = camera.pose[:, None], camera.intrinsics[:, None], self.model.sizes.pixels
        self.found = tuple(
            retrieve(bank.cameras(), Cameras(*target, size), time=time, before=before, config=config)
            for bank, target in zip(banks, zip(pose, lens, strict=True), strict=False)
        )
        units = [self._units(bank, found) for bank, found in zip(banks, self.found, strict=True)]
        return RecalledUnits.cat(units) if units else None

    def _units(self, bank: FrameBank, found: Retrieved) -> RecalledUnits:
        units = bank.units(torch.where(found.valid, found.indices, found.indices[0]))
        cameras = Cameras(units.pose[None], units.intrinsics[None], bank.size)
        depth = units.time.new_zeros(len(units.time), 1, 1).float() if units.depth is None else units.depth
        parts = units.time[None], units.dreamed[None], found.valid[None]
        return RecalledUnits(units.latent[None], depth[None], cameras, *parts)

    def _with(self, rows: Iterable[FrameBank]) -> Self:
        twin = type(self)(self.model, tuple(rows))
        twin.recalling = self.recalling
        return twin


def saved_banks(model: BankModel, folder: Path, rows: int, device: torch.device) -> tuple[FrameBank, ...]:
    """The banks of so many rows that were saved in a folder; UserErrors as of `FrameBank.open`."""
    paths, shape = (folder / SessionBanks.file.format(i) for i in range(rows)), model.sizes.latent
    return tuple(FrameBank.open(path, device=device, shape=shape) for path in paths)
