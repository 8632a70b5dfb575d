"""A cloud of points and a bank of frames, side by side.

The cloud says what is where, down to the pixel; the bank, what frames looked like as a whole, and when. What
is drawn by the cloud is put beside the tokens, and memory blocks attend to what the bank recalls.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from dreamwalk.backbones.frame_backbone import Recalled
from dreamwalk.clip import Clip
from dreamwalk.codecs.codec import Codec
from dreamwalk.memory.contract import CameraState, FinishedFrame, Memory, Recollection, TokenSizes, Trainee
from dreamwalk.memory.frame_memory import BankConfig, BankMemory, Banks
from dreamwalk.memory.point_cloud import PointCloud
from dreamwalk.memory.points import Clouds, PointsConfig, PointsMemory
from dreamwalk.schedules.generator import KeyedGenerator


@dataclass(frozen=True)
class PointsAndBankConfig(PointsConfig):
    """A memory of points with a bank beside it."""

    bank: BankConfig = field(default_factory=BankConfig)

    def build(self, sizes: TokenSizes) -> PointsAndBank:
        return PointsAndBank(self, sizes)


class PointsAndBank(PointsMemory):
    """Recalls a rendering and frames."""

    def __init__(self, config: PointsAndBankConfig, sizes: TokenSizes) -> None:
        super().__init__(config, sizes)
        self.bank = BankMemory(config.bank, sizes)
        del self.bank.kinematics  # the cloud's body walks
        self.memory_blocks, self.guidance = self.bank.memory_blocks, config.bank.guidance

    @property
    def blank(self) -> Recalled:
        return self.bank.blank

    def begin(self) -> Memory:
        return CloudsAndBanks(self)

    def open(self, folder: Path, *, rows: int) -> Memory:
        clouds, banks = super().open(folder, rows=rows), self.bank.open(folder, rows=rows)
        assert isinstance(clouds, Clouds) and isinstance(banks, Banks)
        return CloudsAndBanks(self, clouds.rows, banks)

    def to_inputs(self, found: Recollection, codec: Codec) -> Recalled:
        return _both(super().to_inputs(found, codec), self.bank.to_inputs(found, codec))

    def recalled_of_clip(
        self, clip: Clip, x: Tensor, generator: KeyedGenerator, *, system: Trainee
    ) -> tuple[Recalled, dict[str, Tensor]]:
        points, terms = super().recalled_of_clip(clip, x, generator, system=system)
        frames, _ = self.bank.recalled_of_clip(clip, x, generator, system=system)
        return _both(points, frames), terms


class CloudsAndBanks(Clouds):
    """What a session has stored in both."""

    model: PointsAndBank

    def __init__(
        self, model: PointsAndBank, rows: tuple[PointCloud, ...] = (), banks: Banks | None = None
    ) -> None:
        super().__init__(model, rows)
        self.banks = banks or Banks(model.bank)

    def write(self, frame: FinishedFrame) -> None:
        super().write(frame)
        self.banks.write(frame)

    def recall(self, camera: CameraState | None, time: int) -> Recollection:
        self.banks.recalling = self.recalling
        found, shown = self.banks.recall(camera, time), super().recall(camera, time)
        return replace(found, rendering=shown.rendering, changed=shown.changed)

    def clone(self) -> Self:
        twin = super().clone()
        twin.banks = self.banks.clone()
        return twin

    def to(self, device: torch.device | str) -> Self:
        twin = super().to(device)
        twin.banks = self.banks.to(device)
        return twin

    def save(self, folder: Path) -> None:
        super().save(folder)
        self.banks.save(folder)


def _both(points: Recalled, frames: Recalled) -> Recalled:
    return points._replace(
        keys=frames.keys, values=frames.values, visible=frames.visible, states=frames.states
    )
