"""The pose model of levels never seen: a body with momentum, stopped by what the cloud of points knows.

How a game answers to actions is linear in the camera's own axes, and is fitted in closed form to walked paths
of any levels: turns and glances from the action, a step from the one before and the action. Walls and floors
are in no weights: a step ends where points at the body's height begin, slides along them, and the feet stand
on the points below.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamwalk.clip import FittingData
from dreamwalk.memory.contract import CameraState, Memory, MemoryModel
from dreamwalk.memory.pose_model import about_the_vertical
from dreamwalk.validation import Positive

ROUNDS = 10
"""Of the fit."""
SHARES = (1.0, 0.8, 0.6, 0.4, 0.2)
"""Of a step that are tried along each axis of the world."""
FEW = 2
"""Points more than where the body stands that do not stop it: stray ones."""
TICS = 3
"""Parts of a step after each of which the body climbs or falls: it would step across narrow pits."""
LAYER, FLOOR_SHARE = 2.0, 0.2
"""Height of the layers of points in which a floor is looked for, and how many points it has at least, as a
share of those in the fullest one."""
RISE, RISE_MORE = 0.4, 3.0
"""Eyes follow a rise by this share of it in a step, or by so much more than in the step before."""
FALLS = 2.0
"""Units that a body falls in its second tic; in the first it only loses its floor, in each later one it falls
a unit more."""


@dataclass(frozen=True)
class BodyConfig:
    """The body that carries the camera, in world units; the defaults are Doom's."""

    radius: Positive = 16.0
    """Half of its side: a box along the axes of the world."""
    height: Positive = 56.0
    eyes: Positive = 41.0
    """Height of the camera above the feet."""
    step: Positive = 24.0
    """Height that it climbs."""

    @property
    def reach(self) -> float:
        """How far from its eyes what stops or carries it can be."""
        return 4 * self.radius + self.eyes


class Kinematics(nn.Module):
    """Where an action leads when nothing is in the way."""

    turn: Tensor
    """Radians to the right of a full action, `(a,)`."""
    glance: Tensor
    """Radians up, likewise."""
    pitches: Tensor
    """Least and largest pitch."""
    middle: Tensor
    """Row of pixels where the horizon is when the camera looks straight ahead."""
    response: Tensor
    """Of the step to the right and ahead, `(2, 2 + a)`: to the step before, and to the action."""

    def __init__(self, actions: int) -> None:
        super().__init__()
        for name, shape in {"turn": (actions,), "glance": (actions,), "pitches": (2,), "middle": ()}.items():
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("response", torch.zeros(2, 2 + actions))

    @property
    def fitted(self) -> bool:
        return bool(self.response.any())

    def forward(self, camera: CameraState, action: Tensor) -> CameraState:
        """The camera after `action` `(b, a)`, along the floor."""
        pose, matrix = camera.pose.clone(), camera.intrinsics.clone()
        right, ahead = pose[:, :3, 0], pose[:, :3, 2]
        inputs = torch.cat([_along(right, ahead, camera.displacement), action], -1)
        across, forward = (inputs @ self.response.T).split(1, -1)
        step = across * right + forward * ahead
        # Normalised, or the axes would shrink over hours of walking.
        turned = pose[:, :3, :3] @ about_the_vertical(action @ self.turn)[:, :3, :3]
        pose[:, :3, :3] = nn.functional.normalize(turned, dim=1)
        pose[:, :3, 3] += step
        focal = matrix[:, 1, 1]
        pitch = torch.atan((self.middle - matrix[:, 1, 2]) / focal) + action @ self.glance
        matrix[:, 1, 2] = self.middle - focal * pitch.clamp(*self.pitches).tan()
        return CameraState(pose, step, action, matrix)

    @torch.no_grad()
    def fit(self, poses: Tensor, intrinsics: Tensor, actions: Tensor) -> None:
        """From whole walks: poses `(k, t, 4, 4)`, intrinsics `(k, t, 3, 3)` and actions `(k, t, a)`."""
        poses, intrinsics, actions = poses.double(), intrinsics.double(), actions.double()
        right, ahead = poses[:, :-1, :3, 0], poses[:, :-1, :3, 2]
        heading = _along(right, ahead, poses[:, 1:, :3, 2])
        self.turn.copy_(_robust_fit(actions[:, 1:], torch.atan2(*heading.split(1, -1)))[0])
        rows = intrinsics[..., 1, 2]
        middle = rows.median()  # where the paths are, and the module need not be
        self.middle.copy_(middle)
        pitch = torch.atan((middle - rows) / intrinsics[..., 1, 1])
        self.pitches.copy_(torch.stack([pitch.min(), pitch.max()]))
        self.glance.copy_(_robust_fit(actions[:, 1:], pitch.diff(dim=1)[..., None])[0])
        step = poses[:, 1:, :3, 3] - poses[:, :-1, :3, 3]
        inputs = torch.cat([_along(right[:, 1:], ahead[:, 1:], step[:, :-1]), actions[:, 2:]], -1)
        self.response.copy_(_robust_fit(inputs, _along(right[:, 1:], ahead[:, 1:], step[:, 1:])))


def stopped(step: Tensor, at: Tensor, points: Tensor, *, before: Tensor, body: BodyConfig) -> Tensor:
    """What is left of a step `(3,)` of a body with its eyes `at` `(3,)` among points `(3, n)` around it,
    after the step `before`.

    In each tic a part of it along x, then one along y, as long as it leaves the box around the body free;
    then up to the floor or down towards it. Where nothing is known nothing stops it.
    """
    offset = points - at[:, None]
    offset[2] += body.eyes
    offset = offset[:, (offset[:2].abs() < body.radius + step[:2, None].abs()).all(0)]
    falls, last = bool(before[2] < -1), float(before[2])
    # Eyes follow the feet slowly on stairs: the floor itself says how high these are.
    feet = 0.0 if falls else max(0.0, _floor(offset, feet=0.0, body=body))
    speed, done = FALLS - last / TICS if falls else 0.0, torch.zeros_like(step)
    for _ in range(TICS):
        done = done + _slid(step / TICS, offset - done[:, None], feet=feet, body=body)
        floor = _floor(offset - done[:, None], feet=feet, body=body)
        feet = max(floor, feet - speed)
        speed = max(FALLS, speed + 1) if feet > floor else 0.0
    done[2] = feet if feet <= 0 else min(feet, max(RISE * feet, last + RISE_MORE))
    return done


def _slid(step: Tensor, offset: Tensor, *, feet: float, body: BodyConfig) -> Tensor:
    """The part of a step that points `(3, n)` around a body allow, whose feet are so high."""
    solid = offset[:2, (offset[2] > feet + body.step + 1) & (offset[2] < body.height - 4)]
    done, allowed = torch.zeros_like(step), _inside(solid, body.radius - 1) + FEW
    for axis in (0, 1):
        for share in SHARES:
            tried = done.clone()
            tried[axis] = share * step[axis]
            if _inside(solid - tried[:2, None], body.radius - 1) <= allowed:
                done = tried
                break
    return done


def _floor(offset: Tensor, *, feet: float, body: BodyConfig) -> float:
    """Height of the floor below a body whose feet are so high, by points `(3, n)` around it; that of the feet
    where it is not known.

    It is the highest of the floors that the body touches: of walls and things few points are of one height,
    of a floor many.
    """
    # Points of the next floor that are off by less do not lift it.
    under = offset[:2].abs().amax(0) < body.radius - 2
    lowest = feet - 4 * body.radius
    heights = offset[2, under & (offset[2] < feet + body.step + 1) & (offset[2] > lowest)]
    if len(heights) <= 4 * FEW:
        return feet
    layer = ((heights - lowest) / LAYER).long()
    counts = layer.bincount(minlength=int(layer.max()) + 3).float()
    counts = counts + counts.roll(1) + counts.roll(-1)  # over three layers, for points are off a little
    floors = ((counts >= counts.max() * FLOOR_SHARE) & (counts > 2 * FEW)).nonzero()
    if not len(floors):
        return feet
    best = int(floors.max())
    while best and counts[best - 1] > counts[best]:
        best -= 1
    height = float(heights[(layer - best).abs() <= 1].median())
    return height if abs(height - feet) > LAYER / 2 else feet


def _inside(points: Tensor, radius: float) -> int:
    """How many points `(2, n)` lie within a box around the origin."""
    return int((points.abs().amax(0) < radius).sum())


class WalkedMemory(MemoryModel):
    """A memory of places whose camera goes where actions lead."""

    def __init__(self, actions: int) -> None:
        super().__init__()
        self.kinematics = Kinematics(actions)

    def fit_from_data(self, data: FittingData) -> None:
        """Fit how the camera answers to actions, unless that came with weights."""
        if not self.kinematics.fitted:
            self.kinematics.fit(*data.paths())

    def next_camera(self, camera: CameraState | None, action: Tensor, memory: Memory) -> CameraState | None:
        return None if camera is None else self.kinematics(camera, action)


def _along(right: Tensor, ahead: Tensor, vector: Tensor) -> Tensor:
    """The components `(.., 2)` of vectors `(.., 3)`."""
    return torch.stack([(right * vector).sum(-1), (ahead * vector).sum(-1)], -1)


def _robust_fit(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Weights `(o, i)` from inputs `(.., i)` to outputs `(.., o)`: reweighted least squares of the absolute
    error, then of its logarithm, so that steps that a wall ended do not count and rare actions do."""
    x, y = inputs.flatten(0, -2), outputs.flatten(0, -2)
    share, weights = y.new_ones(len(y), 1), y.new_zeros(y.shape[-1], x.shape[-1])
    for power in (0.5,) * ROUNDS + (1.0,) * ROUNDS:
        # The least-norm solution: actions that never happen get 0.
        weights = (torch.linalg.pinv(share * x, rtol=1e-6) @ (share * y)).T
        share = (x @ weights.T - y).norm(dim=-1, keepdim=True).clamp(min=1e-3) ** -power
    return weights
