"""Places: the map is read along the rays of a column, and the odometer learns walls and turns."""

import math
from itertools import pairwise

import pytest
import torch

from dreamwalk.cameras import intrinsics_matrix
from dreamwalk.memory.neural_map import NeuralMap, NeuralMapConfig
from dreamwalk.memory.pose_model import PoseModel

ROOM = NeuralMapConfig(origin=(0, 0), extent=(128, 128), samples=6, reach=60.0, rays=2, width=16, features=12)
INTRINSICS = torch.from_numpy(intrinsics_matrix(16, 16, cx=16, cy=8))


def facing(angle: float, x: float, y: float) -> torch.Tensor:
    """An upright camera at (x, y) looking `angle` radians north of east."""
    ahead, right = (math.cos(angle), math.sin(angle)), (math.sin(angle), -math.cos(angle))
    columns = [(*right, 0, 0), (0, 0, -1, 0), (*ahead, 0, 0), (x, y, 41, 1)]
    return torch.tensor(columns, dtype=torch.float32).T


def shown_map() -> NeuralMap:
    torch.manual_seed(0)
    return NeuralMap(ROOM, grid=(2, 4), stride=8, channels=4, width=24)


def test_a_fresh_map_adds_nothing_so_it_can_join_trained_weights():
    made = NeuralMap(ROOM, grid=(2, 4), stride=8, channels=4, width=24)
    features = made(facing(0.3, 50, 50)[None, None], INTRINSICS[None, None])
    assert made.latents(features).shape == (1, 1, 4, 2, 4)
    assert made.to_tokens(features).shape == (1, 1, 8, 24) and not made.to_tokens(features).any()


def test_what_is_read_depends_on_where_and_whither():
    made = shown_map()
    poses = torch.stack([facing(0, 50, 50), facing(0, 60, 50), facing(1, 50, 50), facing(0, 50, 50)])
    features = made(poses[None], INTRINSICS.expand(1, 4, 3, 3))[0]
    assert torch.equal(features[0], features[3])
    assert (features[0] - features[1]).abs().max() > 1e-4 < (features[0] - features[2]).abs().max()


def test_a_column_reads_only_what_its_rays_pass_over():
    made = shown_map()
    pose, intrinsics = facing(0, 30, 64)[None, None], INTRINSICS[None, None]
    before = made(pose, intrinsics).reshape(2, 4, 12)
    with torch.no_grad():
        made.grid.features[:, :3] += 1.0  # the strip y < 48: to the right of one who looks east
    after = made(pose, intrinsics).reshape(2, 4, 12)
    changed = (before - after).abs().amax(dim=(0, 2)) > 1e-6
    assert changed[3] and not changed[:2].any()


def walks(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Forward is 8 units and stops at x = 100; the axis turns by 0.5 radians to the right."""
    poses, actions = [], []
    for _ in range(count):
        angle, x, y = float(torch.rand(()) * 0.6 - 0.3), float(60 + 38 * torch.rand(())), 64.0
        path, keys = [facing(angle, x, y)], [torch.zeros(2)]
        for _ in range(5):
            key = torch.tensor([float(torch.rand(()) < 0.7), float(torch.rand(()) * 0.4 - 0.2)])
            angle, step = angle - 0.5 * float(key[1]), 8 * float(key[0])
            x, y = min(100.0, x + step * math.cos(angle)), y + step * math.sin(angle)
            path.append(facing(angle, x, y))
            keys.append(key)
        poses.append(torch.stack(path))
        actions.append(torch.stack(keys))
    return torch.stack(poses), torch.stack(actions)


def test_the_odometer_learns_to_turn_to_walk_and_to_stop_at_a_wall():
    torch.manual_seed(0)
    odometer = PoseModel(ROOM, actions=2)
    assert not odometer.fitted
    odometer.fit(*walks(64), steps=300, window=6)
    assert odometer.fitted and not any(p.requires_grad for p in odometer.parameters())
    assert odometer.turn[1].item() == pytest.approx(0.5, abs=0.02)
    assert odometer.loss(*walks(32)).item() < 0.05, "units of 16, squared: under four world units"


def wild() -> PoseModel:
    """With random weights: whatever was fitted, nothing moves that nothing pushes."""
    torch.manual_seed(1)
    odometer = PoseModel(ROOM, actions=3)
    for parameter in odometer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    odometer.turn.copy_(torch.tensor([0.0, 0.0, 0.5]))  # the last one turns
    return odometer


def test_who_stands_still_stays_wherever_it_is() -> None:
    odometer = wild()
    places = [facing(angle, x, y) for angle in (0.0, 2.0) for x in (-9, 1, 64, 127) for y in (1, 70, 127)]
    start = pose = torch.stack(places)
    move, still = torch.zeros(len(pose), 3), torch.zeros(len(pose), 3)
    pushed, _ = odometer(pose, move, still, torch.tensor([1.0, 0, 0]).expand(len(pose), 3))
    assert ((pushed - pose)[:, :3, 3].norm(dim=1) > 1).all(), "these weights do push"
    for turning in (0.0, 0.3):
        action = torch.tensor([0, 0, turning]).expand(len(pose), 3)
        for _ in range(20):
            pose, move = odometer(pose, move, action, action)
        assert torch.equal(pose[:, :3, 3], start[:, :3, 3])
    assert (pose[:, :3, :3] - start[:, :3, :3]).abs().amax() > 0.1, "it turned on the spot"


def test_what_nothing_pushes_any_more_slows_down() -> None:
    odometer = wild()
    pose, move = facing(0.3, 60, 60)[None], torch.tensor([[12.0, 16.0, 0.0]])
    action = torch.tensor([[1.0, 0, 0]])
    speeds = []
    for _ in range(40):
        pose, move = odometer(pose, move, action, torch.zeros(1, 3))
        action = torch.zeros(1, 3)
        speeds.append(move.norm().item())
    assert all(after <= 0.801 * before for before, after in pairwise(speeds))
    assert speeds[-1] < 0.1
