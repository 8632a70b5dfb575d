"""What a new frame says against a cloud: a thing that vanished, and one that was put down.

What is seen now wins over what was stored, where the two cannot both be. A frame that looks through a surface
of the cloud, at something clearly behind it, erases its points; depth that is a little wrong must not, nor an
edge that lies a pixel aside, so the nearest depth of 3x3 pixels counts, several pixels must say the same, and
pixels must be fine enough to see what they do not show. True frames erase true and dreamed points. Dreamed
frames are often wrong: they erase dreamed points, and only when far off; true ones, near by, only while an
action has just changed something.
"""

from __future__ import annotations

from dataclasses import dataclass

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
