"""What every system is: parts, a loss, and a config that builds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from torch import Tensor, nn

from dreamwalk.clip import Clip, FittingData
from dreamwalk.errors import UserError
from dreamwalk.rollout.dream import WorldSpec
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.world import ActionSchema


@dataclass(frozen=True)
class SystemConfig:
    """The parts of a system, and how it is trained and sampled."""

    @property
    def needs_depth(self) -> bool:
        """Whether the clips that it trains on are to come with their depth: for a codec of RGB-D."""
        return getattr(getattr(self, "codec", None), "image_channels", 3) == 4

    def build(self) -> System:
        """The system with fresh weights."""
        raise NotImplementedError

    def sized(self, schema: ActionSchema, size: tuple[int, int]) -> Self:
        """The config for data with these actions and frames of `size` (h, w); UserError where none fits."""
        return self


def grid_of(size: tuple[int, int], cell: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of cells in frames of `size` (h, w); UserError with the nearest size that has whole
    ones."""
    (height, width), (down, across) = size, cell
    if height % down or width % across or not height or not width:
        near = [max(1, round(side / part)) * part for side, part in zip(size, cell, strict=True)]
        raise UserError(
            f"frames of {height}x{width} do not divide into squares of {down}x{across}: collect them again, "
            f"with `--size {near[0]} {near[1]}`"
        )
    return height // down, width // across


class System(nn.Module):
    """A module with a loss. What can be left out has a default here."""

    name: str
    config: SystemConfig
    generates: Literal["", "frames", "clips", "scenes"] = ""
    """What it dreams: one frame after another, whole clips, or clips with depth along a path."""
    about: dict[str, Any] | None = None
    """Metadata of the file that the weights came from."""
    world_spec: WorldSpec | None = None
    """Of the data that it was trained on: actions, and frames to start from."""

    @property
    def blocks(self) -> Sequence[nn.Module] | nn.ModuleList:
        """What is sharded, compiled and checkpointed."""
        return []

    @property
    def working_bytes(self) -> int:
        """Memory that sampling takes at least, beside the weights."""
        return 0

    def fit_from_data(self, data: FittingData) -> None:
        """Before the first step, set what is computed from data, not learnt."""

    def loss(self, clip: Clip, generator: KeyedGenerator) -> dict[str, Tensor]:
        """What is minimised for a batched clip, `loss`, and other scalars to log."""
        raise NotImplementedError

    def preview(self, clip: Clip) -> Tensor:
        """What the system makes of `clip`, in [-1, 1] `(b, t, 3, h, w)`, to look at during training."""
        raise NotImplementedError

    def check_world(self, spec: WorldSpec, source: str) -> None:
        """UserError unless starts and actions of a weight file fit the network."""

    def adapt_weights(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Weights of a smaller kind of this system, whose config the file tells, as weights to start from."""
        return tensors
