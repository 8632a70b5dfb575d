"""Which frame a bank forgets when its budget is spent: one for every frame written, by one of six policies.

    fifo           the oldest
    uniform        the one whose neighbours in time are closest to each other
    k-center       the one closest to another in pose (a greedy k-center that goes on for ever)
    co-visibility  the one of whose view the others see most
    rarity         the one with the most neighbours in pose and the closest one
    version        an old version of a place, neither its first nor its newest; then firsts; then places

The first frame and the newest, or as many of the newest as a budget says, are never forgotten. By pose and by
view, frames are judged without the newest, which would drive its predecessor out at every step of a walk. The
same input gives the same bank. A policy learns a frame in O(n); `uniform` and `version` sort at each write
instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.memory.frustum import Cameras, bounds, lifted, points_ahead
from dreamwalk.validation import Bytes, Count, Positive

PolicyName = Literal["fifo", "uniform", "k-center", "co-visibility", "rarity", "version"]
ANGLE = 2 * math.sin(math.radians(30) / 2)
"""Length of the chord of the angle between two directions that counts as much as the side of a place."""
AROUND = 2.0
"""Poses are neighbours, for rarity, up to this distance."""
VIEW = 64
"""Points of a view, for co-visibility."""
EMPTY = 1e18
"""Where slots without a frame are, far from all others."""


@dataclass(frozen=True)
class BankBudget:
    """How much a bank may hold, and what goes first. UserError for budgets of fewer than two frames."""

    frames: int | None = None
    """The most; None for no bound."""
    policy: PolicyName = "k-center"
    memory_bytes: Bytes = 1 << 30
    """Of latents in RAM; all others are on disk. 36 KB a frame at the size of WorldMem."""
    place: Positive = 64.0
    """Side of a place in world units, which counts as much as a turn of 30 degrees (WorldMem: 2 m)."""
    radius: Positive = 1024.0
    """World units up to which views are compared (WorldMem: 30 m)."""
    newest: Count = 1
    """So many of the newest are never forgotten."""

    def __post_init__(self) -> None:
        if self.frames is not None and self.frames <= self.newest:
            raise UserError(
                f"a bank of {self.frames} frames has no room for the first frame and the newest: allow it "
                f"{self.newest + 1} or more, or None for all"
            )


class Policy:
    """First in, first out: what the others derive from."""

    forgets = 1
    """Of frames that are worth the same the oldest, or with -1 the newest."""

    def __init__(self, budget: BankBudget, *, device: torch.device) -> None:
        assert budget.frames is not None
        self.budget, self.device = budget, device

    def learn(self, cameras: Cameras, slot: int) -> None:
        """Take note of the frame that was written into a slot, the next one or the victim's."""

    def victim(self, cameras: Cameras, coming: Cameras) -> int:
        """The slot to be overwritten by the one frame that is coming; never 0, where the first frame is."""
        assert cameras.time is not None and coming.time is not None
        worth, age = self.worth(cameras, coming)[1:], -cameras.time[1:] * self.forgets
        worth = torch.where(cameras.time[1:] > coming.time - self.budget.newest, torch.inf, worth)
        return 1 + int(torch.where(worth == worth.min(), age, torch.iinfo(age.dtype).min).argmax())

    def worth(self, cameras: Cameras, coming: Cameras) -> Tensor:
        """Of each frame `(n,)`: the least goes."""
        return torch.zeros(len(cameras), device=self.device)


class Uniform(Policy):
    """Even in time: a frame is worth the gap that it would leave."""

    def worth(self, cameras: Cameras, coming: Cameras) -> Tensor:
        assert cameras.time is not None
        time, order = cameras.time.double().sort(stable=True)
        gap = torch.full_like(time, torch.inf)
        gap[1:-1] = time[2:] - time[:-2]
        return torch.empty_like(gap).scatter_(0, order, gap)


class KCenter(Policy):
    """Even over poses: a frame is worth its distance to the nearest other.

    The newer one of two goes: a camera that walks on would drag the older one along, and leave no trail.
    """

    forgets = -1

    def __init__(self, budget: BankBudget, *, device: torch.device) -> None:
        super().__init__(budget, device=device)
        assert budget.frames is not None
        self.poses = torch.full((6, budget.frames), EMPTY, device=device)
        """Position in places, and direction."""
        self.distance = torch.full((budget.frames,), torch.inf, device=device)
        """Squared, to the nearest other."""
        self.nearest = torch.full((budget.frames,), -1, device=device)

    def learn(self, cameras: Cameras, slot: int) -> None:
        n, one = len(cameras), cameras.rows(slice(slot, slot + 1))
        self.poses[:, slot] = torch.cat([one.position / self.budget.place, one.direction / ANGLE], 1)[0]
        # The frame itself, and those whose nearest was in this slot, look at all others.
        lost = torch.cat([(self.nearest[:n] == slot).nonzero()[:, 0], self.nearest.new_tensor([slot])])
        apart = self.apart(lost, n)
        self.distance[lost], self.nearest[lost] = apart.min(1)
        closer = apart[-1] < self.distance[:n]
        self.distance[:n] = torch.where(closer, apart[-1], self.distance[:n])
        self.nearest[:n].masked_fill_(closer, slot)

    def apart(self, index: Tensor, n: int) -> Tensor:
        """Squared distances of some poses from the first `n`, `(i, n)`; inf from themselves."""
        found = sum((row[index, None] - row[:n]).square() for row in self.poses)
        assert isinstance(found, Tensor)
        return found.scatter_(1, index[:, None], torch.inf)

    def worth(self, cameras: Cameras, coming: Cameras) -> Tensor:
        return self.distance[: len(cameras)]


class Rarity(KCenter):
    """A frame is worth the distance to the nearest other, the more the fewer others are around."""

    def __init__(self, budget: BankBudget, *, device: torch.device) -> None:
        super().__init__(budget, device=device)
        self.around = torch.zeros_like(self.nearest)

    def learn(self, cameras: Cameras, slot: int) -> None:
        n = len(cameras)
        self.around[:n] -= self._near(slot, n)
        super().learn(cameras, slot)
        near = self._near(slot, n)
        self.around[:n] += near
        self.around[slot] = near.sum()

    def _near(self, slot: int, n: int) -> Tensor:
        """Whether poses are neighbours of one, int64 `(n,)`."""
        return (self.apart(torch.tensor([slot], device=self.device), n)[0] < AROUND**2).long()

    def worth(self, cameras: Cameras, coming: Cameras) -> Tensor:
        n = len(cameras)
        return ((n + 1) / (self.around[:n] + 1)).log() * self.distance[:n].sqrt()


class CoVisibility(Policy):
    """A frame is worth the points of its view, each shared among all frames that see it."""

    def __init__(self, budget: BankBudget, *, device: torch.device) -> None:
        super().__init__(budget, device=device)
        assert budget.frames is not None
        # In float64, so that what was counted once is found again when it goes.
        self.bounds = torch.zeros(budget.frames, 5, 5, dtype=torch.float64, device=device)
        self.bounds[:, :, 3] = -1  # where no frame is, nothing is seen
        self.points = torch.zeros(budget.frames, 5, VIEW, dtype=torch.float64, device=device)
        self.others = torch.zeros(budget.frames, VIEW, dtype=torch.int32, device=device)
        """Of each point, how many other frames see it."""

    def learn(self, cameras: Cameras, slot: int) -> None:
        n, radius = len(cameras), self.budget.radius
        origin = cameras.position[0].double()
        one = cameras.rows(slice(slot, slot + 1)).double()
        self.others[:n] -= self._seen(self.bounds[slot], self.points[:n])
        self.bounds[slot] = bounds(one, origin, unit=radius, reach=2 * radius)[0]
        self.points[slot] = lifted(points_ahead(one, VIEW, radius=radius), origin, unit=radius)[0]
        self.others[:n] += self._seen(self.bounds[slot], self.points[:n])
        self.others[slot] = self._seen(self.bounds[:n], self.points[slot]).sum(0) - 1

    def worth(self, cameras: Cameras, coming: Cameras) -> Tensor:
        return (1 / (1 + self.others[: len(cameras)].double())).sum(1)

    @staticmethod
    def _seen(bounds: Tensor, points: Tensor) -> Tensor:
        """Whether all bounds hold, int32 `(n, m)`."""
        return (bounds @ points >= 0).all(-2).int()


class Version(Policy):
    """Of each place the first frame and the newest are worth more than what lies between."""

    def worth(self, cameras: Cameras, coming: Cameras) -> Tensor:
        assert cameras.time is not None and coming.time is not None
        parts = [torch.cat([x.position / self.budget.place, x.direction * 2], 1) for x in (cameras, coming)]
        cell = torch.cat(parts).round().long().unique(dim=0, return_inverse=True)[1]
        time = torch.cat([cameras.time, coming.time])
        newest = time.scatter_reduce(0, cell, time, "amax", include_self=False)[cell]
        first = time.scatter_reduce(0, cell, time, "amin", include_self=False)[cell]
        return torch.where(time == newest, 2, (time == first).long())[: len(cameras)]


POLICIES: dict[PolicyName, type[Policy]] = {
    "fifo": Policy,
    "uniform": Uniform,
    "k-center": KCenter,
    "co-visibility": CoVisibility,
    "rarity": Rarity,
    "version": Version,
}
