"""Points of a world in tiles of space, of which a stated number lies in RAM and the rest on disk.

A world as large as a walk is long does not fit into memory; what the cameras of a clip see of it does. Points
lie in cubes of a grid, a file each. What is asked for is loaded, as fine as it is seen: the points of a file
are in an order in which the first few are an even sample of all. What is farthest from the cameras gives way
when the bound is reached. A manifest names the files of the last commit, so that a process which is killed
finds its world as that left it.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from dreamwalk.errors import UserError, atomic, brief, writing
from dreamwalk.memory.frustum import boxes_in_view
from dreamwalk.memory.splatting import NEAR, Points, projection
from dreamwalk.memory.voxels import voxel_keys
from dreamwalk.temporary import TemporaryFolder

FORMAT = "dreamwalk-world/1"
SHARES = (256, 64, 16)
"""Points of a tile that are drawn at its levels of detail, of 256."""
FINE = (0.5, 0.25)
"""At such widths in pixels of the largest point and above, the level is the first, and the second: with fewer
points than one a pixel, surfaces would have holes."""
Key = tuple[int, int, int]


@dataclass(frozen=True)
class Surfels(Points):
    """Points that face somewhere."""

    normal: Tensor
    """Towards the side from which they were seen, world axes, -1 .. 1 as uint8 0 .. 255, `(3, n)`."""

    @property
    def rank(self) -> Tensor:
        """A number 0 .. 255 of each that has nothing to do with where it lies, `(n,)`."""
        x, y, z = self.position.view(torch.int32).long()
        mixed = (x * 0x9E3779B1 + y * 0x85EBCA6B + z * 0xC2B2AE35) & 0xFFFFFFFF
        mixed = ((mixed ^ (mixed >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
        return (mixed >> 24).to(torch.int16)

    def pick(self, which: Tensor) -> Surfels:
        """Those of an index, or of a bool of each."""
        index = which.nonzero().squeeze(1) if which.dtype == torch.bool else which
        return Surfels(*(getattr(self, field.name).index_select(-1, index) for field in fields(self)))

    @classmethod
    def cat(cls, parts: list[Surfels]) -> Surfels:
        if len(parts) == 1:
            return parts[0]
        return cls(*(torch.cat([getattr(part, field.name) for part in parts], -1) for field in fields(cls)))

    @classmethod
    def none(cls) -> Surfels:
        three, one = torch.zeros(3, 0), torch.zeros(0)
        return cls(three, three.byte(), one, one.int(), one.bool(), three.byte())


@dataclass(frozen=True)
class TileBudget:
    """How much of a world lies in RAM. UserError for a bound or a side that is not above 0."""

    points: int | None = 2_000_000
    """The most, of 27 bytes each; None for no bound, and then nothing is written before a commit."""
    side: float = 256.0
    """Of a tile, in world units."""
    voxel: float | None = 1.0
    """Of points within so many footprints one is kept, at commits; None keeps all."""

    def __post_init__(self) -> None:
        if self.points is not None and self.points < 1:
            raise UserError(f"a world of {self.points} points in RAM shows nothing: allow 1 or more, or None")
        if not self.side > 0:
            raise UserError(f"tiles of side {self.side} hold nothing: make them larger than 0")


class _Tile:
    """One cube. `loaded` are the first points of its file at `level`, None when they are not in RAM."""

    def __init__(self) -> None:
        self.loaded: Surfels | None = Surfels.none()
        self.level = 0
        self.fresh: list[Surfels] = []
        """Points that are in no file."""
        self.file: str | None = None
        self.counts: list[int] = [0] * len(SHARES)
        """Points in the file, by level."""
        self.box = torch.tensor([[torch.inf], [-torch.inf]]).expand(2, 3).clone()
        self.widest = 0.0
        """Largest footprint."""

    def __len__(self) -> int:
        return self.in_ram if self.file is None else self.counts[0] + sum(map(len, self.fresh))

    @property
    def in_ram(self) -> int:
        return (0 if self.loaded is None else len(self.loaded)) + sum(map(len, self.fresh))

    def about(self) -> dict[str, Any]:
        """For the manifest."""
        return {"file": self.file, "counts": self.counts, "box": self.box.tolist(), "widest": self.widest}

    def add(self, points: Surfels) -> None:
        self.fresh.append(points)
        low = torch.minimum(self.box[0], points.position.amin(1))
        self.box = torch.stack([low, torch.maximum(self.box[1], points.position.amax(1))])
        self.widest = max(self.widest, float(points.footprint.max()))

    def share(self, level: int) -> int:
        """Points in RAM when it is there at a level."""
        loaded = len(self.loaded) if self.file is None and self.loaded is not None else self.counts[level]
        return loaded + sum(map(len, self.fresh))

    def lacks(self, level: int) -> bool:
        """Whether a level has to be read."""
        return self.file is not None and (self.loaded is None or self.level > level)

    def drawn(self, level: int) -> list[Surfels]:
        """Its points at a level that is in RAM."""
        parts = [*([] if self.loaded is None else [self.loaded]), *self.fresh]
        return parts if level == 0 else [part.pick(part.rank < SHARES[level]) for part in parts]


class PointTiles:
    """A world of points, of which `budget.points` are in RAM at most while it is asked for views."""

    def __init__(self, budget: TileBudget | None = None, *, folder: Path | str | None = None) -> None:
        self.budget = budget or TileBudget()
        self._temporary = TemporaryFolder() if folder is None and self.budget.points is not None else None
        if self._temporary is not None:
            folder = self._temporary.name
        self.folder = None if folder is None else Path(folder)
        self._tiles: dict[Key, _Tile] = {}
        self._coming: dict[tuple[str | None, int], Future[Surfels]] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="tiles")
        self.most = 0
        """Points that were in RAM at most."""

    def __len__(self) -> int:
        return sum(map(len, self._tiles.values()))

    @property
    def in_ram(self) -> int:
        return sum(tile.in_ram for tile in self._tiles.values())

    def close(self) -> None:
        """Let go of the folder; one that was not asked for is removed."""
        self._reader.shutdown()
        if self._temporary is not None:
            self._temporary.cleanup()

    def add(self, points: Surfels) -> None:
        """Put points into their tiles. They are in RAM until the next call of `view` or `commit`."""
        cells = (points.position / self.budget.side).floor().long()
        found, index = cells.unique(dim=1, return_inverse=True)
        for k, key in enumerate(found.T.tolist()):
            self._tiles.setdefault(tuple(key), _Tile()).add(points.pick(index == k))
        self.most = max(self.most, self.in_ram)

    def view(self, poses: Tensor, intrinsics: Tensor, *, size: tuple[int, int]) -> list[Surfels]:
        """What each of the cameras `(t, 4, 4)` with intrinsics `(t, 3, 3)` can see in a picture of `size`.

        UserError when the disk is full as points have to give way; all of them stay.
        """
        keys, levels, distance = self._wanted(poses, intrinsics, size=size)
        asked, nearest = levels.amin(1), distance.amin(1)
        order = [i for i in nearest.argsort(stable=True).tolist() if asked[i] < len(SHARES)]
        allowed = self._allowed([keys[i] for i in order], asked[order].tolist())
        self._make_room(allowed, [keys[i] for i in nearest.argsort(descending=True).tolist()])
        for key, level in allowed.items():
            self._load(key, level)
        self.most = max(self.most, self.in_ram)
        views = []
        for camera in levels.T.tolist():
            parts = [Surfels.none()]
            for i in order:
                if camera[i] < len(SHARES) and keys[i] in allowed:
                    parts += self._tiles[keys[i]].drawn(max(camera[i], allowed[keys[i]]))
            views.append(Surfels.cat(parts))
        return views

    def prefetch(self, poses: Tensor, intrinsics: Tensor, *, size: tuple[int, int]) -> None:
        """Begin to read what coming cameras will see, beside other work, as far as there is room."""
        self._coming.clear()  # what was read for nothing takes no more room
        if not len(poses):
            return
        keys, levels, distance = self._wanted(poses, intrinsics, size=size)
        room = len(self) if self.budget.points is None else self.budget.points - self.in_ram
        for i in distance.amin(1).argsort(stable=True).tolist():
            tile, level = self._tiles[keys[i]], int(levels[i].min())
            if level < len(SHARES) and tile.lacks(level):
                room -= tile.share(level)
                if room < 0:
                    break
                if (tile.file, level) not in self._coming:
                    self._coming[tile.file, level] = self._reader.submit(self._read, tile.file, level)

    def all_points(self) -> Iterator[Surfels]:
        """Tile after tile, in the order of their keys; what is not in RAM is read and let go again."""
        for key in sorted(self._tiles):
            yield self._whole(self._tiles[key])

    def commit(self) -> None:
        """Merge what is new, write it, and name the files of now in the manifest: from here on a process that
        is killed finds this. UserError on a full disk; the last commit stays, and so do all points."""
        most, held = self.budget.points or sys.maxsize, self.in_ram
        for key, tile in self._tiles.items():
            before = tile.in_ram
            if tile.fresh:
                self._store(key, merge=True)
            held += tile.in_ram - before
            if held > most:
                held, tile.loaded = held - tile.in_ram, None
        if self.folder is None:
            return
        about = {",".join(map(str, key)): self._tiles[key].about() for key in sorted(self._tiles)}
        told = {"format": FORMAT, "side": self.budget.side, "tiles": about}
        with writing(self.folder), atomic(self.folder / "manifest.json") as partial:
            partial.write_text(json.dumps(told) + "\n")
        self._sweep()

    @classmethod
    def open(cls, folder: Path | str, budget: TileBudget | None = None) -> PointTiles:
        """The world of the last commit; UserError for a folder that is broken or another's."""
        path = Path(folder) / "manifest.json"
        try:
            told = json.loads(path.read_text())
            if told.get("format") != FORMAT:
                raise UserError(
                    f"'{folder}' holds no world of points: give a folder that a world was saved in"
                )
            budget = replace(budget or TileBudget(), side=float(told["side"]))
            tiles = cls(budget, folder=folder)
            for name, about in told["tiles"].items():
                x, y, z = map(int, name.split(","))
                tile = tiles._tiles[x, y, z] = _Tile()
                tile.loaded, tile.file, tile.counts = (
                    None,
                    str(about["file"]),
                    list(map(int, about["counts"])),
                )
                tile.box, tile.widest = torch.tensor(about["box"]).view(2, 3), float(about["widest"])
                if not (Path(folder) / tile.file).is_file():
                    raise UserError(f"'{folder}' lacks its file '{tile.file}': copy the whole folder again")
        except UserError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise UserError(f"'{path}' cannot be read ({brief(error)}): save the world again") from error
        tiles._sweep()
        return tiles

    def _wanted(
        self, poses: Tensor, intrinsics: Tensor, *, size: tuple[int, int]
    ) -> tuple[list[Key], Tensor, Tensor]:
        """Keys of all tiles, with the level that each camera asks of each, and how far it is, `(tiles, t)`;
        the level is `len(SHARES)` for what is out of view."""
        keys, none = list(self._tiles), torch.zeros(0, len(poses))
        if not keys:
            return keys, none.long(), none
        low, high = torch.stack([self._tiles[key].box for key in keys], 1)
        widest = torch.tensor([self._tiles[key].widest for key in keys])
        levels, distances = [], []
        for pose, matrix in zip(poses, intrinsics, strict=True):
            seen, nearest = boxes_in_view(projection(pose, matrix), low.T, high.T, size=size)
            pixels = widest * matrix[0, 0] / nearest.clamp(min=NEAR)
            level = (pixels < FINE[0]).long() + (pixels < FINE[1]).long()
            levels.append(torch.where(seen, level, len(SHARES)))
            place = pose[:3, 3]
            distances.append((torch.maximum(low - place, place - high).clamp(min=0)).norm(dim=1))
        return keys, torch.stack(levels, 1), torch.stack(distances, 1)

    def _allowed(self, order: list[Key], asked: list[int]) -> dict[Key, int]:
        """The level that tiles are loaded at, the nearest first, within the bound; one for which there is no
        room is coarser than asked, or is left out."""
        room, allowed = self.budget.points or sys.maxsize, {}
        for key, level in zip(order, asked, strict=True):
            tile = self._tiles[key]
            while level < len(SHARES) and tile.share(level) > room:
                level += 1
            if level < len(SHARES):
                allowed[key] = level
                room -= tile.share(level)
        return allowed

    def _make_room(self, allowed: dict[Key, int], farthest: list[Key]) -> None:
        """Let tiles go, the farthest first, until what is allowed fits in."""
        if self.budget.points is None:
            return
        coming = sum(self._tiles[key].share(level) for key, level in allowed.items())
        others = sum(tile.in_ram for key, tile in self._tiles.items() if key not in allowed)
        for key in farthest:
            tile = self._tiles[key]
            if key in allowed:
                if tile.level < allowed[key]:
                    self._let_go(key)  # finer than there is room for
            elif coming + others > self.budget.points:
                others -= tile.in_ram
                self._let_go(key)

    def _let_go(self, key: Key) -> None:
        tile = self._tiles[key]
        if tile.fresh or tile.file is None:
            self._store(key, merge=False)
        tile.loaded = None

    def _load(self, key: Key, level: int) -> None:
        tile = self._tiles[key]
        if tile.lacks(level):
            coming = self._coming.pop((tile.file, level), None)
            tile.loaded = coming.result() if coming is not None else self._read(tile.file, level)
            tile.level = level

    def _whole(self, tile: _Tile) -> Surfels:
        """All points of a tile."""
        loaded = tile.loaded
        if tile.file is not None and (loaded is None or tile.level > 0):
            loaded = self._read(tile.file, 0)
        return Surfels.cat([loaded if loaded is not None else Surfels.none(), *tile.fresh])

    def _store(self, key: Key, *, merge: bool) -> None:
        """Write a tile anew, under a name that no manifest knows yet; it is whole in RAM afterwards."""
        tile = self._tiles[key]
        points = self._whole(tile)
        if merge and self.budget.voxel is not None:
            points = merged(points, self.budget.voxel)
        rank = points.rank
        points = points.pick(rank.argsort(stable=True))
        if self.folder is not None:
            counts = [int((rank < share).sum()) for share in SHARES]
            name = f"{'_'.join(map(str, key))}.{uuid.uuid4().hex[:12]}.safetensors"
            rows = {field.name: getattr(points, field.name).contiguous() for field in fields(points)}
            data = safetensors.torch.save(rows, metadata={"counts": json.dumps(counts)})
            with writing(self.folder), atomic(self.folder / name) as partial:
                partial.write_bytes(data)
            tile.file, tile.counts = name, counts
        tile.loaded, tile.level, tile.fresh = points, 0, []

    def _read(self, name: str | None, level: int) -> Surfels:
        """The first points of a file, those of a level."""
        assert self.folder is not None and name is not None
        path = self.folder / name
        try:
            with safetensors.safe_open(path, "pt") as file:
                count = json.loads(file.metadata()["counts"])[level]
                return Surfels(*(file.get_slice(field.name)[..., :count] for field in fields(Surfels)))
        except (OSError, safetensors.SafetensorError, TypeError, ValueError, LookupError) as error:
            raise UserError(f"'{path}' cannot be read ({brief(error)}): save the world again") from error

    def _sweep(self) -> None:
        """Remove files that the manifest does not name: of tiles as they were, and of a process that died."""
        assert self.folder is not None
        named = {tile.file for tile in self._tiles.values()}
        for path in self.folder.glob("*.safetensors"):
            if path.name not in named:
                path.unlink(missing_ok=True)


def merged(points: Surfels, voxel: float) -> Surfels:
    """One point of those within `voxel` footprints of each other: the finest, of equals the oldest."""
    keys = voxel_keys(points.position, points.footprint * voxel, points.dreamed)
    order = points.time.argsort(stable=True)
    order = order[points.footprint[order].argsort(stable=True)]
    order = order[keys[order].argsort(stable=True)]
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = keys[order][1:] != keys[order][:-1]
    return points.pick(order[first].sort().values)
