"""What a new frame says against a cloud: a thing that vanished, and one that was put down.

What is seen now wins over what was stored, where the two cannot both be. A frame that looks through a surface
of the cloud, at something clearly behind it, erases its points; depth that is a little wrong must not, nor an
edge that lies a pixel aside, so the nearest depth of 3x3 pixels counts, several pixels must say the same, and
pixels must be fine enough to see what they do not show. True frames erase true and dreamed points. Dreamed
frames are often wrong: they erase dreamed points, and only when far off; true ones, near by, only while an
action has just changed something. What an action put down goes as a whole when a later one takes it away: a
dream takes some frames to let go of a thing, and its rims and foot would stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from dreamwalk.memory.splatting import Rendering, projection

TRUE, DREAMED = (1.15, 10.0), (1.6, 24.0)
"""A frame looks through a surface when it sees so many times as far and units more, by who made it."""
FEWEST = 12
"""Pixels that must look through the cloud before anything is erased."""
RESOLVED = 8.0
"""A pixel wider than so many footprints of a point cannot tell that the point is not there."""
KNOWN = 0.2
"""Least mask at which the cloud shows a surface, and not only neighbours of one."""
CHANGES = 8
"""Frames from a changing action on in which what is true may change."""
APART = 32.0
"""What is put down lies within so many units of its median."""
GONE = 0.12
"""Share of what a cloud shows of a thing that a frame must look through to take it away."""
OPEN = 1000.0
"""Of pixels without depth, the sky, nothing is known but that they see at least so far, in units."""


@dataclass(frozen=True)
class Sight:
    """How far a frame sees at each pixel, and where it looks through what the cloud shows there."""

    matrix: Tensor
    """Of its camera, as `splatting.projection` gives it."""
    focal: Tensor
    nearest: Tensor
    """The least depth in 3x3 pixels, `(h, w)`."""
    through: Tensor
    """bool `(h, w)`, and the pixels around."""
    dreamed: bool
    reach: float
    """A dreamed frame may erase true points so near, in units."""

    @classmethod
    def of(
        cls,
        depth: Tensor,
        world_from_camera: Tensor,
        intrinsics: Tensor,
        *,
        shown: Rendering,
        dreamed: bool,
        reach: float = 0.0,
    ) -> Sight | None:
        """Of a frame with planar depth `(h, w)`, 0 for the sky, before what the cloud showed from there; None
        where the two agree."""
        far = torch.where(depth > 0, depth, OPEN)
        nearest = -max_pool2d(-far[None], 3, 1, 1)[0]
        times, more = DREAMED if dreamed and not reach else TRUE
        through = (nearest > shown.depth[0] * times + more) & (shown.mask[0] > KNOWN)
        if dreamed:
            through &= (shown.dreamed[0] > 0) | (shown.depth[0] < reach)
        if through.sum() < FEWEST:
            return None
        around = max_pool2d(through[None].float(), 3, 1, 1)[0] > 0
        matrix = projection(world_from_camera, intrinsics)
        return cls(matrix, intrinsics[0, 0], nearest, around, dreamed, reach)

    def denies(self, position: Tensor, footprint: Tensor, dreamed: Tensor) -> Tensor:
        """Which points at `(3, n)`, with footprints and layers `(n,)`, cannot be there: bool `(n,)`."""
        x, y, z = torch.addmm(self.matrix[:, 3:], self.matrix[:, :3], position)
        height, width = self.nearest.shape
        column, row = x / z, y / z
        inside = (z > 1) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        pixel = torch.where(inside, row.floor() * width + column.floor(), 0.0).long()
        times, more = DREAMED if self.dreamed and not self.reach else TRUE
        gone = inside & self.through.flatten()[pixel] & (z * times + more < self.nearest.flatten()[pixel])
        gone &= z < RESOLVED * self.focal * footprint
        return gone & (dreamed | (z < self.reach)) if self.dreamed else gone


@dataclass(frozen=True)
class Placed:
    """The box in which an action put something down."""

    time: int
    """Of the frame that showed it first."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    """Its corners in world coordinates; z is up."""

    @classmethod
    def of(cls, position: Tensor, *, time: int) -> Placed | None:
        """Around points `(3, n)` of its side that was seen, and as much behind it as it is wide; None where
        they are too few to tell."""
        if position.shape[1] < FEWEST:
            return None
        middle = position.median(1, keepdim=True).values
        near = position[:, ((position - middle).abs() < APART).all(0)]
        if near.shape[1] < FEWEST:
            return None
        low, high = near.quantile(0.02, 1), near.quantile(0.98, 1)
        behind = (high - low)[:2].amax() / 2
        margin = torch.stack([behind, behind, torch.ones_like(behind)])
        return cls(time, tuple((low - margin).tolist()), tuple((high + margin).tolist()))

    def holds(self, position: Tensor) -> Tensor:
        """Which points at `(3, n)` lie in it: bool `(n,)`."""
        low, high = position.new_tensor(self.low)[:, None], position.new_tensor(self.high)[:, None]
        return ((position > low) & (position < high)).all(0)


@dataclass
class Changes:
    """What actions put down and took away in one cloud."""

    placed: list[Placed] = field(default_factory=list)
    taken: list[Placed] = field(default_factory=list)
    """Those that a frame took away; `time` is its."""

    def put(self, position: Tensor, *, time: int) -> Tensor:
        """Which points at `(3, n)`, that a frame shows before what is known, are of what was put down: bool
        `(n,)`. Those in the box of the first frame that showed it, for later ones would add shells around."""
        new = _lately(self.placed, time)
        if not new and (one := Placed.of(position, time=time)):
            self.placed.append(one)
            new = [one]
        return within(new, position)

    def take(self, sight: Sight, position: Tensor, known: Tensor, *, time: int) -> list[Placed]:
        """What a frame takes away of what is there for a while: much of what the cloud shows of it, at
        `position` `(3, h w)` in the pixels that are `known` `(h w,)`, is looked through."""
        gone = []
        for one in [one for one in self.placed if time - one.time >= CHANGES]:
            shown = known & one.holds(position)
            if shown.sum() >= FEWEST and (shown & sight.through.flatten()).sum() >= GONE * shown.sum():
                gone.append(one)
                self.placed.remove(one)
                self.taken.append(replace(one, time=time))
        return gone

    def just_taken(self, *, time: int) -> list[Placed]:
        """Where a frame may add nothing: what was taken away is dreamed away in some frames, not in one."""
        self.taken = _lately(self.taken, time)
        return self.taken


def within(boxes: Sequence[Placed], position: Tensor) -> Tensor:
    """Which points at `(3, n)` lie in any of the boxes: bool `(n,)`."""
    held = torch.zeros_like(position[0], dtype=torch.bool)
    for box in boxes:
        held |= box.holds(position)
    return held


def _lately(boxes: Sequence[Placed], time: int) -> list[Placed]:
    """Those of the change that is under way."""
    return [box for box in boxes if time - box.time < CHANGES]


def newly_shown(depth: Tensor, shown: Rendering, *, reach: float) -> Tensor:
    """Where dreamed frames with planar depth `(b, h, w)` show something new within `reach` units, clearly
    before what is known: bool `(b, h, w)`. With an action that puts things down this is no error."""
    nearer = depth * 1.25 + TRUE[1] < shown.depth
    return (depth > 0) & (depth < reach) & nearer & (shown.mask > KNOWN)


def otherwise(depth: Tensor, shown: Rendering, *, reach: float) -> Tensor:
    """Where frames with planar depth `(b, h, w)` clearly see something else than clouds show, within `reach`
    units: a thing that was put down, or one that is gone; bool `(b, h, w)`, and the pixels around."""
    far, known = torch.where(depth > 0, depth, OPEN), shown.mask > KNOWN
    gone = known & (shown.depth < reach) & (shown.depth * TRUE[0] + TRUE[1] < far)
    return max_pool2d((newly_shown(depth, shown, reach=reach) | gone).float(), 5, 1, 2) > 0
