"""The cloud of points that one session keeps of what it has shown, within a stated budget.

A point is the pixel of a frame, in the voxel around it, whose side is about the pixel's own size there. A
voxel holds one point, of those that were seen in it the finest. Points lie in buckets of 64, neighbours in
the frame that showed them, with a box around each bucket: what is out of view costs little, and of far ones
only some points are drawn. When the budget is spent, those buckets go that were out of view for longest,
dreamed ones first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from dreamwalk.errors import UserError, atomic, brief, writing
from dreamwalk.memory.contradiction import KNOWN, Changes, Placed, Sight, newly_shown, within
from dreamwalk.memory.depth_alignment import align_depth
from dreamwalk.memory.frame_points import EDGES, FAR, points_of_frame
from dreamwalk.memory.frustum import NEAR, boxes_in_view
from dreamwalk.memory.splatting import Points, Rendering, projection, render, unprojected
from dreamwalk.memory.voxels import VoxelTable, voxel_keys

BUCKET = 64
"""Points of a bucket."""
FINER = 0.8
"""A point takes the place of the one in its voxel when its footprint is smaller by this factor."""
STRIDES = ((1, 1.0, torch.inf), (4, 0.5, 1.0), (16, 0.0, 0.5))
"""Of a bucket every such point is drawn, when the largest is so many pixels wide: from, and below."""
FORMAT = "dreamwalk-cloud/1"
POINT_ROWS = {"position": torch.float32, "rgb": torch.uint8, "footprint": torch.float32, "time": torch.int32}
"""Of every point `(3, n)` or `(n,)`, a bucket after the other; a slot without a point is at inf."""
BUCKET_ROWS = {"low": torch.float32, "high": torch.float32, "widest": torch.float32}
BUCKET_ROWS |= {"seen": torch.int64, "dreamed": torch.bool}
"""Of every bucket: corners of its box `(3, n)`, largest footprint, time of the last view, and layer."""
TRIPLES = {"position", "rgb", "low", "high"}
BLANK = {"position": torch.inf, "low": torch.inf, "high": -torch.inf}


@dataclass(frozen=True)
class CloudBudget:
    """How much a cloud may hold. UserError for a cap below 1."""

    points: int | None = 1_000_000
    """The most in all, of about 65 bytes each; None for no bound."""
    voxel: float | None = 1.0
    """Side of a voxel in footprints of its point, rounded down to a power of two units; None keeps all."""
    aligned: bool = True
    """Fit the depth of dreamed frames to what was shown as true before they are added."""

    def __post_init__(self) -> None:
        if self.points is not None and self.points < 1:
            raise UserError(
                f"a cloud of {self.points} points keeps nothing: allow it 1 or more, or None for all"
            )
        if self.voxel is not None and not self.voxel > 0:
            raise UserError(f"voxels of {self.voxel} footprints hold nothing: make them larger than 0")


class PointCloud:
    """What one session has shown, as points."""

    def __init__(self, budget: CloudBudget | None = None, *, device: torch.device | str = "cpu") -> None:
        self.budget = budget or CloudBudget()
        cap = sys.maxsize if self.budget.points is None else self.budget.points
        self._size = min(BUCKET, cap)
        self._most = cap // self._size
        """Buckets."""
        self._used = 0
        self._open = {False: (0, 0), True: (0, 0)}
        """Of each layer: first slot, and slots, that are left in the bucket that was begun last."""
        self._changes = Changes()
        self._rows = _rows(min(64, self._most), self._size, device=torch.device(device))
        self._table = VoxelTable(self._rows["time"].shape[0], device=torch.device(device))

    def __len__(self) -> int:
        return int(self._rows["position"][0].isfinite().sum())

    def points(self) -> Points:
        """All of them."""
        live = self._rows["position"][0].isfinite().nonzero().squeeze(1)
        position, rgb, footprint, seen = (self._rows[name].index_select(-1, live) for name in POINT_ROWS)
        return Points(position, rgb, footprint, seen, self._rows["dreamed"][live // self._size])

    @property
    def slots(self) -> int:
        """Places for points that are in use."""
        return self._used * self._size

    def sample(self, every: int) -> tuple[Tensor, Tensor, Tensor]:
        """Positions `(3, n)`, colours and footprints of every so many-th slot; empty ones are at inf. An odd
        number does not always take the same one of a bucket."""
        taken = slice(0, self.slots, every)
        position, rgb, footprint = (self._rows[name][..., taken] for name in ("position", "rgb", "footprint"))
        return position, rgb, footprint

    @torch.no_grad()
    def render(self, world_from_camera: Tensor, intrinsics: Tensor, *, size: tuple[int, int]) -> Rendering:
        """What a camera `(4, 4)` with intrinsics `(3, 3)` sees in a picture of `size`, as a batch of 1."""
        buckets, pixels = self._visible(projection(world_from_camera, intrinsics), size)
        parts = [(buckets[(pixels >= low) & (pixels < high)], stride) for stride, low, high in STRIDES]

        def drawn(name: str) -> Tensor:
            row = self._rows[name].unflatten(-1, (-1, self._size))
            return torch.cat([row[..., ::k].index_select(-2, index).flatten(-2) for index, k in parts], -1)

        flags = self._rows["dreamed"]
        dreamed = torch.cat([flags[i].repeat_interleave(-(-self._size // k)) for i, k in parts])
        position, rgb, footprint, time = (drawn(name) for name in POINT_ROWS)
        near = Points(position, rgb, footprint, time, dreamed)
        return render([near], world_from_camera[None], intrinsics=intrinsics[None], size=size)

    @torch.no_grad()
    def insert(
        self,
        rgb: Tensor,
        depth: Tensor,
        world_from_camera: Tensor,
        intrinsics: Tensor,
        *,
        time: int,
        dreamed: bool,
        edges: float = EDGES,
        rendering: Rendering | None = None,
        reach: float = 0.0,
    ) -> None:
        """Add a frame `(3, h, w)` in [-1, 1] with planar depth `(h, w)` in world units, 0 for the sky.

        Pixels at depth edges are left out; `edges` is inf for depth that is exact. What the frame looks
        through is erased (`contradiction`). Of a dreamed frame, depth is aligned to what is true, and only
        those pixels are added that `rendering`, the cloud from this very camera (rendered here when it is
        None), does not show as finely. Within `reach` units a dreamed frame may change what is true.
        """
        size, wanted, changed = (depth.shape[0], depth.shape[1]), None, None
        matrices = world_from_camera, intrinsics
        if self._used:
            shown = rendering if rendering is not None else self.render(*matrices, size=size)
            known, mask = shown.depth[0], shown.mask[0]
            if dreamed:
                wanted = mask < 1
                if self.budget.aligned:
                    # Not to what was dreamed: its errors would add up from frame to frame.
                    true = (mask == 1) & (shown.dreamed[0] == 0) & (known < FAR / 2)
                    depth = align_depth(depth, torch.where(true, known, 0.0))
                if reach:
                    changed = newly_shown(depth[None], shown, reach=reach)[0]
            sight = Sight.of(depth, *matrices, shown=shown, dreamed=dreamed, reach=reach)
            if sight is not None:
                buckets = self._visible(sight.matrix, size)[0]
                self._erase(buckets, sight.denies)
                if reach:
                    place, drawn = unprojected(known, *matrices), (mask > KNOWN).flatten()
                    if taken := self._changes.take(sight, place, drawn, time=time):
                        self._erase(buckets, lambda position, *_: within(taken, position))
                wanted = None if wanted is None else wanted | sight.through
        self._rows["seen"][self._visible(projection(*matrices), size)[0]] = time
        frame = (rgb, depth, *matrices)
        if changed is not None:
            # Twice as fine: what is behind is finely known, and would shine through between the points.
            finer = _doubled(rgb, depth, *matrices), changed.repeat_interleave(2, 0).repeat_interleave(2, 1)
            fresh = points_of_frame(*finer[0], time=time, dreamed=False, edges=edges, wanted=finer[1])
            fresh = self._admitted(fresh, time)
            fresh = _chosen(fresh, self._changes.put(fresh.position, time=time))
            self._merge(fresh, time=time, dreamed=False)
        fresh = points_of_frame(*frame, time=time, dreamed=dreamed, edges=edges, wanted=wanted)
        self._merge(self._admitted(fresh, time) if dreamed else fresh, time=time, dreamed=dreamed)

    def _admitted(self, fresh: Points, time: int) -> Points:
        """Without those where something was just taken away."""
        taken = self._changes.just_taken(time=time)
        return _chosen(fresh, ~within(taken, fresh.position)) if taken else fresh

    def _erase(self, buckets: Tensor, gone: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        """The points of those buckets of which `gone` says so, by position, footprint and layer."""
        slots = (buckets[:, None] * self._size + torch.arange(self._size, device=buckets.device)).flatten()
        layer = self._rows["dreamed"][buckets].repeat_interleave(self._size)
        place, footprint = (self._rows[name].index_select(-1, slots) for name in ("position", "footprint"))
        slots = slots[gone(place, footprint, layer)]
        self._table.forget(slots)
        self._rows["position"][:, slots] = torch.inf
        touched = (slots // self._size).unique()
        left = self._rows["position"].unflatten(-1, (-1, self._size))[:, touched]
        self._rows["low"][:, touched] = left.amin(-1)
        self._rows["high"][:, touched] = torch.where(left.isfinite(), left, -torch.inf).amax(-1)

    def near(self, place: Tensor, reach: float) -> Tensor:
        """Positions `(3, n)` of the points within a box of half the side `reach` around `place` `(3,)`."""
        low, high = place[:, None] - reach, place[:, None] + reach
        boxes = (self._rows["low"][:, : self._used] < high) & (self._rows["high"][:, : self._used] > low)
        rows = self._rows["position"].unflatten(-1, (-1, self._size))
        position = rows.index_select(1, boxes.all(0).nonzero().squeeze(1)).flatten(1)
        return position[:, ((position > low) & (position < high)).all(0)]

    def clone(self) -> PointCloud:
        """A copy that later insertions leave alone."""
        return self.to(self._rows["time"].device)

    def to(self, device: torch.device | str) -> PointCloud:
        """A copy on a device."""
        copy = PointCloud(self.budget, device=device)
        copy._used, copy._open, copy._changes = self._used, dict(self._open), deepcopy(self._changes)
        copy._rows = {name: row.to(device, copy=True) for name, row in self._rows.items()}
        copy._table = self._table.to(device)
        return copy

    def save(self, path: Path | str) -> None:
        """Write everything into one file; UserError where it cannot be written."""
        slots = dict.fromkeys(POINT_ROWS, self._used * self._size)
        sizes = slots | dict.fromkeys(BUCKET_ROWS, self._used)
        rows = {name: self._rows[name][..., :size].cpu().contiguous() for name, size in sizes.items()}
        about: dict[str, Any] = {"budget": asdict(self.budget), "open": [self._open[False], self._open[True]]}
        about |= {"room": self._rows["seen"].shape[0], "changes": asdict(self._changes)}
        data = safetensors.torch.save(rows, metadata={"format": FORMAT, "cloud": json.dumps(about)})
        with writing(path), atomic(Path(path)) as partial:
            partial.write_bytes(data)

    @staticmethod
    def open(path: Path | str, *, device: torch.device | str = "cpu") -> PointCloud:
        """The cloud that was saved at `path`, bit-equal; UserError for a file that is broken or another's."""
        try:
            with safetensors.safe_open(path, "pt") as file:
                about = file.metadata() or {}
                rows = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if about.get("format") != FORMAT:
                raise UserError(f"'{path}' holds no cloud of points: give a file that a session saved")
            told = json.loads(about["cloud"])
            cloud = PointCloud(CloudBudget(**told["budget"]), device=device)
            whole = cloud._fill(rows, told["open"], room=int(told["room"]))
            lists = told.get("changes", {}).items()
            cloud._changes = Changes(**{name: [Placed(**one) for one in kept] for name, kept in lists})
        except UserError:
            raise
        except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"'{path}' cannot be read ({brief(error)}): save the cloud again") from error
        if not whole:
            raise UserError(f"'{path}' holds parts that do not fit together: save the cloud again")
        return cloud

    def _fill(self, rows: dict[str, Tensor], left: list[list[int]], *, room: int) -> bool:
        """Take what a file holds; False for what does not fit together."""
        used = rows["seen"].shape[0]
        blank = _rows(used, self._size, device=torch.device("cpu"))
        wrong = [x for x, row in blank.items() if (rows[x].shape, rows[x].dtype) != (row.shape, row.dtype)]
        runs, slots = [(int(start), int(count)) for start, count in left], used * self._size
        if (
            wrong
            or not used <= room <= self._most
            or any(not 0 <= start <= start + count <= slots for start, count in runs)
        ):
            return False
        self._grow(room)
        for name in blank:
            self._rows[name][..., : rows[name].shape[-1]] = rows[name].to(self._rows[name].device)
        self._used, self._open = used, dict(zip((False, True), runs, strict=True))
        self._index()
        return True

    def _visible(self, camera: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Buckets whose boxes a camera sees, and how many pixels wide their points are at most."""
        low, high, widest = (self._rows[name][..., : self._used] for name in ("low", "high", "widest"))
        seen, nearest = boxes_in_view(camera, low, high, size=size)
        index = seen.nonzero().squeeze(1)
        return index, widest[index] * camera[0, :3].norm() / nearest[index].clamp(min=NEAR)

    def _keys(self, points: Points) -> Tensor:
        """Of the voxels of points."""
        assert self.budget.voxel is not None
        return voxel_keys(points.position, points.footprint * self.budget.voxel, points.dreamed)

    def _merge(self, fresh: Points, *, time: int, dreamed: bool) -> None:
        """Points into the voxels that they lie in, where there is none or a coarser one."""
        count, room = len(fresh), self._most * self._size
        if count > room:
            fresh = _chosen(fresh, torch.arange(room, device=fresh.time.device) * count // room)
        self._grow(self._used - (-len(fresh) // self._size))  # before cells of the table are claimed
        if self.budget.voxel is None:
            self._write(fresh, self._allocated(len(fresh), time=time, dreamed=dreamed))
            return
        keys = self._keys(fresh)
        slots = self._table.find(keys)
        known = self._rows["footprint"].index_select(0, slots.clamp(min=0))
        finer = ((slots >= 0) & (fresh.footprint < FINER * known)).nonzero().squeeze(1)
        finer = finer[_first_of(slots[finer])]
        self._write(_chosen(fresh, finer), slots[finer])
        new = (slots < 0).nonzero().squeeze(1)
        # What does not find room could not be found again, and would be added again with every frame.
        cells = self._table.claim(keys[new])
        new, cells = new[cells >= 0], cells[cells >= 0]
        slots = self._allocated(len(new), time=time, dreamed=dreamed)
        self._table.assign(cells, slots)
        self._write(_chosen(fresh, new), slots)

    def _write(self, points: Points, slots: Tensor) -> None:
        """Points into slots that are all different, and into the boxes of their buckets."""
        for name in POINT_ROWS:
            self._rows[name].index_copy_(-1, slots, getattr(points, name))
        bucket = slots // self._size
        self._rows["low"].scatter_reduce_(1, bucket.expand(3, -1), points.position, "amin")
        self._rows["high"].scatter_reduce_(1, bucket.expand(3, -1), points.position, "amax")
        self._rows["widest"].scatter_reduce_(0, bucket, points.footprint, "amax")

    def _allocated(self, count: int, *, time: int, dreamed: bool) -> Tensor:
        """Free slots for so many points; no more than the budget."""
        (start, left), device = self._open[dreamed], self._rows["time"].device
        buckets = -(-(count - left) // self._size)
        if buckets <= 0:
            self._open[dreamed] = (start + count, left - count)
            return torch.arange(start, start + count, device=device)
        if self._used + buckets > self._most:
            left, buckets = 0, -(-count // self._size)  # the bucket that is open may have to go
        begun = self._begun(buckets)
        self._rows["seen"][begun], self._rows["dreamed"][begun] = time, dreamed
        slots = (begun[:, None] * self._size + torch.arange(self._size, device=device)).flatten()
        slots = torch.cat([torch.arange(start, start + left, device=device), slots])
        self._open[dreamed] = (int(slots[-1]) + 1 - (len(slots) - count), len(slots) - count)
        return slots[:count]

    def _begun(self, count: int) -> Tensor:
        """Empty buckets: unused ones, then those that were out of view for longest, dreamed ones first."""
        unused, rows = min(count, self._most - self._used), self._rows
        rank = rows["seen"][: self._used] + ((~rows["dreamed"][: self._used]).long() << 40)
        evicted = rank.argsort(stable=True)[: count - unused]
        self._table.forget(
            (evicted[:, None] * self._size + torch.arange(self._size, device=rank.device)).flatten()
        )
        for name in rows:
            row = rows[name].unflatten(-1, (-1, self._size)) if name in POINT_ROWS else rows[name]
            row.index_fill_(-2 if name in POINT_ROWS else -1, evicted, BLANK.get(name, 0))
        gone = set(evicted.tolist())
        self._open = {x: (0, 0) if at[0] // self._size in gone else at for x, at in self._open.items()}
        fresh = torch.arange(self._used, self._used + unused, device=rank.device)
        self._used += unused
        return torch.cat([evicted, fresh])

    def _grow(self, buckets: int) -> None:
        """Make room for so many buckets, by doubling, or as many as the budget allows."""
        have = self._rows["seen"].shape[0]
        more = min(1 << (buckets - 1).bit_length(), self._most) - have
        if buckets <= have or more <= 0:
            return
        blank = _rows(more, self._size, device=self._rows["time"].device)
        self._rows = {name: torch.cat([row, blank[name]], -1) for name, row in self._rows.items()}
        self._index()

    def _index(self) -> None:
        """Find room in a new table for all points."""
        self._table = VoxelTable(self._rows["time"].shape[0], device=self._rows["time"].device)
        if self.budget.voxel is not None:
            live = self._rows["position"][0].isfinite().nonzero().squeeze(1)
            cells = self._table.claim(self._keys(self.points()))
            self._table.assign(cells[cells >= 0], live[cells >= 0])


def _rows(buckets: int, size: int, *, device: torch.device) -> dict[str, Tensor]:
    """Rows of so many buckets without points."""
    rows = {}
    for name, dtype in (POINT_ROWS | BUCKET_ROWS).items():
        count = buckets * size if name in POINT_ROWS else buckets
        shape = (3, count) if name in TRIPLES else (count,)
        rows[name] = torch.full(shape, BLANK.get(name, 0), dtype=dtype, device=device)
    return rows


def _doubled(rgb: Tensor, depth: Tensor, pose: Tensor, intrinsics: Tensor) -> tuple[Tensor, ...]:
    """A frame of twice the height and width, every pixel four times."""
    rgb, depth = (part.repeat_interleave(2, -1).repeat_interleave(2, -2) for part in (rgb, depth))
    return rgb, depth, pose, intrinsics * intrinsics.new_tensor([[2], [2], [1]])


def _chosen(points: Points, which: Tensor) -> Points:
    """Those points; `which` is an index or a bool of each."""
    index = which.nonzero().squeeze(1) if which.dtype == torch.bool else which
    return Points(*(getattr(points, field.name).index_select(-1, index) for field in fields(points)))


def _first_of(keys: Tensor) -> Tensor:
    """Whether each key `(n,)` is the first one of its value."""
    found, order = keys.sort(stable=True)
    first = torch.ones_like(keys, dtype=torch.bool)
    first[order[1:]] = found[1:] != found[:-1]
    return first
