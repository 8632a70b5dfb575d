"""How attention is told where a recalled token is, seen from the camera of the frame that is made.

    pluecker    rays of both in the coordinates of the target's camera, `(o x d, d)`, into queries and keys:
                what WorldMem does (arXiv 2504.12369, section 3.3, equations 4 and 5)
    prope       half of each head is turned by the projective transform from one camera to the other, and
                half by the place of each token in its own frame (PRoPE, arXiv 2507.10496, section 3)
    projected   keys turn with where the 3-D point of their token lands in the target's frame; what lies
                behind the camera, beside the frame, or behind what is nearer is hidden

The last one needs the depth of what is recalled, and leaves nothing of geometry to be learnt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dreamwalk.layers.precision import float32_arithmetic
from dreamwalk.memory.frustum import Cameras
from dreamwalk.memory.point_cloud import FAR

Encoding = Literal["projected", "prope", "pluecker"]
UNIT = 128.0
"""World units that count as one, in rays and in transforms: about a step across a room."""
AGREE, SLACK = 1.1, 8.0
"""A token is hidden behind another that is so many times nearer, and world units besides."""
BESIDE = 0.5
"""Tokens outside of the frame that may still be seen."""
PERIODS = (4.0, 16.0, 64.0, 256.0, 1024.0)
"""Frames after which an age has mostly passed, in the embedding of time."""
AGES, CLOSENESS, RAYS = 2 + len(PERIODS), 4, 6
"""Numbers that tell of time, of how near, and of a ray."""


def cell_rays(cameras: Cameras, grid: tuple[int, int]) -> Tensor:
    """Directions in the camera, with z = 1, through the middles of the cells of a grid, `(.., n, 3)`."""
    rows, columns = (
        (torch.arange(n, device=cameras.pose.device) + 0.5) * side / n
        for n, side in zip(grid, cameras.size, strict=True)
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    at, matrix = torch.stack([x, y], -1).flatten(0, 1), cameras.intrinsics
    middle, focal = matrix[..., :2, 2], matrix.diagonal(dim1=-2, dim2=-1)[..., :2]
    across = (at - middle[..., None, :]) / focal[..., None, :]
    return torch.cat([across, torch.ones_like(across[..., :1])], -1)


def cell_points(cameras: Cameras, depth: Tensor) -> Tensor:
    """World points `(.., p * q, 3)` of the planar depths of cells `(.., p, q)`; sky lies far away."""
    z = torch.where(depth > 0, depth, FAR).flatten(-2)[..., None]
    local = cell_rays(cameras, (depth.shape[-2], depth.shape[-1])) * z
    return local @ cameras.pose[..., :3, :3].mT + cameras.pose[..., None, :3, 3]


@dataclass(frozen=True)
class Landing:
    """Where points land in the frames of `t` target cameras."""

    place: Tensor
    """Row and column in cells of a grid, `(b, t, m, 2)`."""
    depth: Tensor
    """In front of the camera, in world units, `(b, t, m)`."""
    visible: Tensor
    """Bool `(b, t, m)`."""
    cell: Tensor
    """Index of the finer cell that they land in, `(b, t, m)`; of any where they are not visible."""


def landing(points: Tensor, there: Tensor, targets: Cameras, grid: tuple[int, int], *, finer: int) -> Landing:
    """Of those world points `(b, m, 3)` that are `there` `(b, m)`, in cells of `grid`; what hides them is
    told in cells so many times `finer`."""
    turn, at = targets.pose[..., :3, :3], targets.pose[..., :3, 3]
    local = points[:, None] @ turn - (at[..., None, :] @ turn)
    z = local[..., 2]
    ahead = (z > 1.0) & there[:, None]
    image = local @ targets.intrinsics.mT
    cells = torch.tensor([grid[1] / targets.size[1], grid[0] / targets.size[0]], device=points.device)
    place = (image[..., :2] / z.clamp(min=1.0)[..., None] * cells).flip(-1).clamp(-64.0, 128.0)
    limits = torch.tensor(grid, device=points.device)
    visible = ahead & ((place > -BESIDE) & (place < limits + BESIDE)).all(-1)
    fine = (place.clamp(min=0) * finer).long().minimum(limits * finer - 1)
    cell = fine[..., 0] * grid[1] * finer + fine[..., 1]
    front = torch.full((*z.shape[:2], grid[0] * grid[1] * finer**2), math.inf, device=points.device)
    front = front.scatter_reduce(2, cell, torch.where(visible, z, math.inf), "amin")
    visible &= z <= front.gather(2, cell) * AGREE + SLACK
    return Landing(place, z, visible, cell)


def ages(age: Tensor, dreamed: Tensor) -> Tensor:
    """What keys are told of time, `(b, t, m, AGES)`: the `age` of tokens in frames `(b, t, m)`, and whether
    they were `dreamed` `(b, m)`."""
    age = age.float()
    gone = [(-age.abs() / period).exp() for period in PERIODS]
    return torch.stack([dreamed[:, None].expand_as(age).float(), (1 + age.abs() / 16).log(), *gone], -1)


def closeness(found: Landing, own_depth: Tensor) -> Tensor:
    """What keys are told of where tokens land besides that, `(b, t, m, CLOSENESS)`: how much larger they are
    than where they were seen, `own_depth` `(b, m)` away, how far away they are, and where in their cell."""
    own, z = own_depth.clamp(min=1.0)[:, None], found.depth.clamp(min=1.0)
    near = found.place - found.place.floor() - 0.5
    return torch.cat([torch.stack([(z / own).log(), (z / UNIT).log()], -1).clamp(-8, 8), near], -1)


def pluecker(cameras: Cameras, targets: Cameras, grid: tuple[int, int]) -> Tensor:
    """Rays of the cells of `b` rows of `k` cameras as seen by `t` targets, `(b, t, k * n, 6)`: moment and
    direction."""
    turn, at = targets.pose[..., :3, :3], targets.pose[..., :3, 3]
    rays = torch.nn.functional.normalize(cell_rays(cameras, grid), dim=-1) @ cameras.pose[..., :3, :3].mT
    direction = torch.einsum("bknc,btcd->btknd", rays, turn)
    origin = torch.einsum("btkc,btcd->btkd", cameras.pose[:, None, :, :3, 3] - at[:, :, None], turn) / UNIT
    moment = torch.linalg.cross(origin[..., None, :].expand_as(direction), direction)
    return torch.cat([moment, direction], -1).flatten(2, 3)


@float32_arithmetic()
def projective(cameras: Cameras, targets: Cameras) -> Tensor:
    """The transform `P_target P_camera^-1` of `k` cameras to `t` targets, `(b, t, k, 4, 4)`."""
    ours, theirs = _projection(targets), _projection(cameras)
    return ours[:, :, None] @ torch.linalg.inv(theirs)[:, None]


def _projection(cameras: Cameras) -> Tensor:
    """World to normalised pixels, as an invertible 4x4 matrix, `(b, k, 4, 4)`; lengths in `UNIT`s."""
    height, width = cameras.size
    matrix = cameras.intrinsics.clone()
    scale = torch.tensor([1 / width, 1 / height, 1.0], device=matrix.device)
    matrix = matrix * scale[:, None]
    matrix[..., :2, 2] -= 0.5
    pose = cameras.pose.clone()
    pose[..., :3, 3] /= UNIT
    lifted = torch.eye(4, device=matrix.device).expand_as(pose).clone()
    lifted[..., :3, :3] = matrix
    return lifted @ torch.linalg.inv(pose)
