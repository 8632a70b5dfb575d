"""The bank of frames of one session (WorldMem, arXiv 2504.12369, 3.2): units of latent, pose and time.

What retrieval looks at (poses, intrinsics, times, coarse depths) is stacked on the bank's device in buffers
that grow by doubling. Latents are in RAM up to a limit, and on disk beyond it (`latent_store`): the eight of
a frame are 300 KB, so there is no use in holding them on a card. A bank without a bound grows by 36 KB a
frame at the size of WorldMem, 1.3 GB an hour at 10 frames a second; one with a bound forgets by `retention`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.memory.bank_file import read_bank, write_bank
from dreamwalk.memory.frustum import Cameras
from dreamwalk.memory.latent_store import KeptLatent, LatentStore
from dreamwalk.memory.retention import POLICIES, BankBudget, Policy
from dreamwalk.validation import conform

Method = TypeVar("Method", bound=Callable[..., Any])
ROWS: dict[str, tuple[torch.dtype, tuple[int | None, ...]]] = {
    "time": (torch.int64, ()),
    "pose": (torch.float32, (4, 4)),
    "intrinsics": (torch.float32, (3, 3)),
    "action": (torch.float32, (None,)),
    "depth": (torch.float32, (None, None)),
    "dreamed": (torch.bool, ()),
}
"""Type and shape of what is kept of a frame beside its latent; None where the first frame says the side."""


@dataclass(frozen=True)
class Unit:
    """A frame to be kept."""

    latent: Tensor
    """`(c, h, w)`."""
    action: Tensor
    """That led into it, `(a,)`."""
    pose: Tensor
    """`world_from_camera`, `(4, 4)`."""
    intrinsics: Tensor
    """`(3, 3)` in pixels."""
    time: int
    """Index of the frame since the session began."""
    dreamed: bool = True
    """Whether it was made by the system, and not given."""
    depth: Tensor | None = None
    """Planar depth of the farthest surface in each cell of a coarse grid, `(p, q)` in world units; 0 where it
    is not known."""


@dataclass(frozen=True)
class Units:
    """Frames that were kept, stacked; as in `Unit`."""

    latent: Tensor
    """`(k, c, h, w)`."""
    action: Tensor
    pose: Tensor
    intrinsics: Tensor
    time: Tensor
    """int64 `(k,)`."""
    dreamed: Tensor
    """bool `(k,)`."""
    depth: Tensor | None


def _plain(method: Method) -> Method:
    """Tensors made within are ordinary ones in inference mode too: a bank may be written to outside of it."""
    return torch.inference_mode(False)(torch.no_grad()(method))


class FrameBank:
    """What one session has shown, as frames of `size` (rows and columns, to which intrinsics refer).

    A frame stays in its slot `0 .. len - 1` until it is forgotten; the first one written is in slot 0.
    """

    def __init__(
        self, budget: BankBudget | None = None, *, size: tuple[int, int], device: torch.device | str = "cpu"
    ) -> None:
        self.budget, self.size = budget or BankBudget(), size
        self.device = torch.device(device)
        self._latents: list[KeptLatent] = []
        self._store = LatentStore(self.budget.memory_bytes)
        self._rows: dict[str, Tensor] = {}
        """Of every slot, and of some more that are free."""
        self._shared = False
        """Whether a copy has the same rows: they are copied before they are written to."""
        self._policy: Policy | None = None

    def __len__(self) -> int:
        return len(self._latents)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of a latent, `(c, h, w)`; None before the first one was written."""
        return None if self._store.like is None else tuple(self._store.like.shape)

    @_plain
    def write(self, unit: Unit) -> None:
        """Keep a frame, in place of another one when the budget is spent.

        UserError for a frame of another shape, and where the disk is full; the bank is then as it was.
        """
        given = self._checked(unit)
        kept = self._store.put(unit.latent)
        policy, slot = self._prepared(), len(self)
        if policy is not None and slot == self.budget.frames:
            coming = {name: torch.as_tensor(value, device=self.device)[None] for name, value in given.items()}
            slot = policy.victim(self.cameras(), self._as_cameras(coming))
        self._own(slot, given)
        for name, row in self._rows.items():
            row[slot] = given.get(name, 0)
        self._latents[slot : slot + 1] = [kept]
        if policy is not None:
            policy.learn(self.cameras(), slot)

    def units(self, indices: Tensor) -> Units:
        """Frames of those slots `(k,)`, on the bank's device."""
        latents = [self._store.get(self._latents[i]) for i in indices.tolist()]
        blank = torch.empty(0, *(self.shape or (0, 0, 0)))
        stacked = torch.stack(latents).to(self.device) if latents else blank.to(self.device)
        index = indices.to(self.device)
        rows = {name: row.index_select(0, index) for name, row in self._rows.items()}
        return Units(stacked, **{name: rows.get(name) for name in ROWS})  # type: ignore[arg-type]

    def cameras(self) -> Cameras:
        """Of all frames by their slots; nothing is copied, so it holds until the next frame is written."""
        if not self._rows:
            none = torch.zeros(0, device=self.device)
            return Cameras(none.view(0, 4, 4), none.view(0, 3, 3), self.size, none.long())
        return self._as_cameras({name: row[: len(self)] for name, row in self._rows.items()})

    def _as_cameras(self, rows: dict[str, Tensor]) -> Cameras:
        return Cameras(rows["pose"], rows["intrinsics"], self.size, rows["time"], rows.get("depth"))

    @_plain
    def clone(self) -> FrameBank:
        """A snapshot that later writes leave alone. It shares latents; the rest is copied when one writes."""
        twin = copy.copy(self)
        twin._latents, twin._policy = list(self._latents), copy.deepcopy(self._policy)
        self._shared = twin._shared = True
        return twin

    @_plain
    def to(self, device: torch.device | str) -> FrameBank:
        """A snapshot on a device."""
        twin = self.clone()
        twin.device = torch.device(device)
        if twin.device != self.device:
            twin._rows = {name: row.to(device) for name, row in self._rows.items()}
            twin._policy = None
        return twin

    def save(self, path: Path | str) -> None:
        """Write everything into one file, frame by frame; UserError where it cannot be written."""
        rows = {name: self._rows[name][: len(self)].cpu() for name in ROWS if name in self._rows}
        about = {"budget": asdict(self.budget), "size": self.size}
        latents = (self._store.get(kept) for kept in self._latents)
        like = torch.empty(0) if self._store.like is None else self._store.like
        write_bank(Path(path), rows, latents=latents, like=like, about=about)

    @staticmethod
    @_plain
    def open(
        path: Path | str, *, device: torch.device | str, shape: tuple[int, ...] | None = None
    ) -> FrameBank:
        """The bank that was saved at `path`, bit-equal.

        UserError for a file that is broken, another's, or of another codec than that of latents of `shape`.
        """
        with read_bank(Path(path)) as file:
            where = f"in '{path}'"
            budget = conform(BankBudget, file.about["budget"], f"the budget {where}")
            size = conform(tuple[int, int], file.about["size"], f"the size {where}")
            bank = FrameBank(budget, size=size, device=device)
            if shape is not None and file.count and file.shape != shape:
                raise UserError(
                    f"'{path}' holds latents of shape {file.shape} and not {shape}: open it with the system "
                    "that saved it"
                )
            if not _fitting(file.rows, file.count) or file.count > (budget.frames or file.count):
                raise UserError(f"'{path}' holds parts that do not fit together: save the session again")
            bank._latents = [bank._store.put(latent) for latent in file.latents()]
            bank._rows = {name: row.to(device, copy=True) for name, row in file.rows.items()}
        return bank

    def _checked(self, unit: Unit) -> dict[str, Any]:
        """The rows of a unit; UserError where they are not shaped like those of the bank."""
        given = {name: getattr(unit, name) for name in ROWS if getattr(unit, name) is not None}
        for name, row in self._rows.items():
            if isinstance(given.get(name), Tensor) and given[name].shape != row.shape[1:]:
                raise _foreign(name, given[name].shape, row.shape[1:])
        if self.shape is not None and unit.latent.shape != self.shape:
            raise _foreign("latent", unit.latent.shape, self.shape)
        return given

    def _prepared(self) -> Policy | None:
        """The policy, which knows all frames; None without a bound."""
        if self.budget.frames is None:
            return None
        if self._policy is None:
            self._policy = POLICIES[self.budget.policy](self.budget, device=self.device)
            for slot in range(len(self)):
                self._policy.learn(self.cameras().rows(slice(slot + 1)), slot)
        return self._policy

    def _own(self, slot: int, given: dict[str, Any]) -> None:
        """Rows that no copy shares, with room for a slot."""
        if not self._rows:
            self._rows = {name: self._blank(name, given[name], 64) for name in ROWS if name in given}
        elif slot >= len(self._rows["time"]):
            self._rows = {name: torch.cat([row, torch.zeros_like(row)]) for name, row in self._rows.items()}
        elif self._shared:
            self._rows = {name: row.clone() for name, row in self._rows.items()}
        if "depth" in given and "depth" not in self._rows:
            self._rows["depth"] = self._blank("depth", given["depth"], len(self._rows["time"]))
        self._shared = False

    def _blank(self, name: str, value: Any, count: int) -> Tensor:
        """A row of so many slots for values like one."""
        return torch.zeros(count, *getattr(value, "shape", ()), dtype=ROWS[name][0], device=self.device)

    def __deepcopy__(self, copied: dict[int, object]) -> FrameBank:
        return self.clone()


def _fitting(rows: dict[str, Tensor], count: int) -> bool:
    """Whether rows of a file are those of so many frames."""
    wanted = set(ROWS) if "depth" in rows else set(ROWS) - {"depth"}
    if set(rows) != (wanted if count else set()):
        return False
    for name, row in rows.items():
        dtype, sides = ROWS[name]
        same = [want in (None, side) for want, side in zip(sides, row.shape[1:], strict=False)]
        if row.dtype != dtype or row.dim() != 1 + len(sides) or len(row) != count or not all(same):
            return False
    return True


def _foreign(name: str, given: tuple[int, ...], wanted: tuple[int, ...]) -> UserError:
    return UserError(
        f"a frame whose {name} has the shape {tuple(given)} does not fit this bank, whose have "
        f"{tuple(wanted)}: begin a new session with this system"
    )
