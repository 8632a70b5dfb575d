"""A memory of points: what was seen is recalled from elsewhere, and a body walks among what is known."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dreamwalk.cameras import intrinsics_matrix
from dreamwalk.clip import Clip
from dreamwalk.codecs import patch
from dreamwalk.codecs.rgbd import codec_input, depth_channel, depth_of
from dreamwalk.errors import UserError
from dreamwalk.memory.contract import CameraState
from dreamwalk.memory.kinematics import BodyConfig, Kinematics, stopped
from dreamwalk.memory.points import PointsConfig
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems import forcing
from dreamwalk.systems.forcing import Forcing
from dreamwalk.worlds.doom import pose_matrix

SIDE, ROOM = 32, torch.tensor([[-200.0, -150.0, 0.0], [200.0, 150.0, 128.0]])
MATRIX = torch.from_numpy(intrinsics_matrix(16, 16, cx=16, cy=16))
STILL, AHEAD = torch.zeros(1, 7), torch.eye(7)[:1]


def look(x: float, y: float, heading: float) -> tuple[Tensor, Tensor, Tensor]:
    """Pose, uint8 picture `(3, h, w)` and depth of a box room with coloured walls."""
    pose = torch.from_numpy(pose_matrix((x, y, 41), heading)).float()
    grid = (torch.arange(SIDE) + 0.5 - SIDE / 2) / 16
    local = torch.stack(torch.broadcast_tensors(grid, grid[:, None], torch.ones(())), -1)
    rays = local @ pose[:3, :3].T
    depth = torch.where(rays > 0, (ROOM[1] - pose[:3, 3]) / rays, (ROOM[0] - pose[:3, 3]) / rays).amin(-1)
    hit = pose[:3, 3] + depth[..., None] * rays
    return pose, (127.5 + 120 * (hit / 60).sin()).permute(2, 0, 1).byte(), depth


def walk(poses: list[tuple[float, float, float]]) -> Clip:
    """A batch of one clip."""
    seen = [look(*pose) for pose in poses]
    pose, video, depth = (torch.stack(parts)[None] for parts in zip(*seen, strict=True))
    matrices = MATRIX.expand(1, len(poses), 3, 3)
    actions = torch.zeros(1, len(poses), 7)
    return Clip(video, actions, depth=depth, world_from_camera=pose, intrinsics=matrices)


def system() -> Forcing:
    torch.manual_seed(0)
    codec = replace(patch.tiny(), image_channels=4)
    made = replace(forcing.tiny(), codec=codec, memory=PointsConfig(), window=3).build()
    made.memory.kinematics.fit(*walked())
    return made


def walked() -> tuple[Tensor, Tensor, Tensor]:
    """Paths of a body that turns by 0.5 per action 5, looks up by 0.2 per action 6, keeps 0.7 of its speed,
    and is sometimes held."""
    draw = torch.Generator().manual_seed(0)
    actions = torch.rand(40, 30, 7, generator=draw) * torch.tensor([1, 1, 1, 1, 0, 2, 2.0])
    actions -= torch.tensor([0, 0, 0, 0, 0, 1.0, 1.0])
    poses, matrices = torch.eye(4).repeat(40, 30, 1, 1), MATRIX.repeat(40, 30, 1, 1)
    heading, pitch, speed, at = torch.zeros(40), torch.zeros(40), torch.zeros(40, 2), torch.zeros(40, 2)
    for i in range(30):
        ahead = torch.stack([heading.cos(), heading.sin()], -1)
        right = torch.stack([heading.sin(), -heading.cos()], -1)
        push = (actions[:, i, 0] - actions[:, i, 1])[:, None] * ahead
        push = push + (actions[:, i, 3] - actions[:, i, 2])[:, None] * right
        held = torch.rand(40, 1, generator=draw) < 0.1
        speed = torch.where(held, 0.0, 0.7 * speed + 6 * push)
        at, heading, pitch = at + speed, heading - 0.5 * actions[:, i, 5], pitch + 0.2 * actions[:, i, 6]
        (c, s), none, one = (heading.cos(), heading.sin()), torch.zeros(40), torch.ones(40)
        axes = [(s, -c, none), (none, none, -one), (c, s, none)]
        poses[:, i, :3, :3] = torch.stack([torch.stack(axis, -1) for axis in axes], -1)
        poses[:, i, :2, 3], matrices[:, i, 1, 2] = at, 16 - 16 * pitch.tan()
    return poses, matrices, actions


def test_kinematics_are_found_behind_steps_that_were_held() -> None:
    found = Kinematics(7)
    found.fit(*walked())
    torch.testing.assert_close(found.turn[5], torch.tensor(0.5), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.glance[6], torch.tensor(0.2), atol=2e-2, rtol=0)
    wanted = torch.tensor([[0.7, 0, 0, 0, -6, 6, 0, 0, 0], [0, 0.7, 6, -6, 0, 0, 0, 0, 0]])
    torch.testing.assert_close(found.response, wanted, atol=0.02, rtol=0)


def test_walls_stop_and_floors_carry() -> None:
    body, at = BodyConfig(), torch.tensor([0.0, 0.0, 41.0])
    spots = torch.arange(-60.0, 61.0, 4)
    floor = torch.cartesian_prod(spots, spots, torch.zeros(1)).T
    wall = torch.cartesian_prod(torch.full((1,), 30.0), spots, torch.arange(0.0, 128, 4)).T
    step = torch.tensor([24.0, 5.0, 0.0])
    assert torch.equal(stopped(step, at, floor, body), step)
    left = stopped(step, at, torch.cat([floor, wall], 1), body)
    assert 5 < left[0] < 16 and left[1] == 5 and left[2] == 0, "up to the wall, and along it"
    assert not stopped(step * 0, at, torch.cat([floor, wall], 1), body).any()
    stairs = floor + torch.where(floor[0] > 10, 16.0, 0.0) * torch.eye(3)[2][:, None]
    assert 4 < stopped(step, at, stairs, body)[2] <= 16
    high = floor + torch.where(floor[0] > 18, 40.0, 0.0) * torch.eye(3)[2][:, None]
    assert stopped(step, at, high, body)[0] < 5, "too high to climb"


def test_what_was_seen_is_recalled_from_elsewhere() -> None:
    made, seen, there = system(), walk([(0, 0, 0), (0, 0, 45), (0, 0, 90)]), walk([(-20, 10, 40)])
    session = made.begin(seen)
    camera = CameraState.of_clip(there, 0)
    assert camera is not None
    found = session.memory.recall(camera, 3).rendering
    assert found is not None
    sure = found.mask[0] == 1
    assert sure.float().mean() > 0.7
    truth = codec_input(there, 4)[0, 0]
    assert (found.rgb[0] - truth[:3]).abs().mean(0)[sure].median() < 0.1
    assert (depth_of(depth_channel(found.depth[0])) / there.depth[0, 0] - 1).abs()[sure].median() < 0.02
    recalled = made.memory.to_inputs(session.memory.recall(camera, 3), made.codec)
    guess = made.codec.encode(codec_input(there, 4)) * 0.7
    assert recalled.guess is not None
    assert torch.nn.functional.cosine_similarity(recalled.guess.flatten(), guess.flatten(), dim=0) > 0.9


def test_a_session_writes_what_it_shows() -> None:
    made = system()
    session = made.begin(walk([(0, 0, 0)]))
    twin = session.clone()
    (cloud,) = session.memory.rows
    points = len(cloud)
    for _ in range(3):
        made.advance(session, AHEAD)
    assert session.camera is not None and session.camera.pose[0, 0, 3] > 10
    assert len(cloud) > points and len(twin.memory.rows[0]) == points
    assert session.shown is not None and session.shown.shape == (1, 4, SIDE, SIDE)
    before = session.camera.pose
    for _ in range(20):
        made.advance(session, STILL)
    stands = session.camera.pose
    made.advance(session, STILL)
    assert (session.camera.pose - stands).abs().max() < 0.1 and not torch.equal(before, stands)


def test_it_learns_from_clouds_of_all_kinds() -> None:
    made = system()
    clip = walk([(0, 0, h) for h in (0, 10, 20, 30)])
    clip = replace(clip, past=walk([(-30, 0, h) for h in (0, 20, 40, 60)]))
    loss = made.loss(clip, KeyedGenerator([(0, 0)]))["loss"]
    loss.backward()
    grads = [part.grad for part in made.memory.parameters()]
    assert loss.isfinite() and all(grad is not None and grad.isfinite().all() for grad in grads)
    with pytest.raises(UserError, match="past"):
        made.loss(replace(clip, past=None), KeyedGenerator([(0, 0)]))
    with pytest.raises(UserError, match="depth"):
        made.loss(replace(clip, depth=None), KeyedGenerator([(0, 0)]))
    with pytest.raises(UserError, match="poses"):
        made.loss(replace(clip, world_from_camera=None), KeyedGenerator([(0, 0)]))
