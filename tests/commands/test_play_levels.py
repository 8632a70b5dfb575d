"""`dreamwalk play` of a dream with a memory of points: levels of seeds, pictures, the map, and the switch."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_rooms import SIZE, tiny_rooms

from dreamwalk.commands.play import _dream_app
from dreamwalk.errors import UserError
from dreamwalk.memory.bank_view import stands_of
from dreamwalk.memory.pixel_filter import PixelFilterConfig
from dreamwalk.memory.points import Clouds, PointsConfig
from dreamwalk.rollout.dream import Dream
from dreamwalk.serve import AppConfig
from dreamwalk.serve.world_pair import WorldPair
from dreamwalk.systems.forcing import Forcing
from dreamwalk.worlds.doom import DOOM_ACTIONS, Doom, start_of


@pytest.fixture(scope="module")
def system() -> Forcing:
    return tiny_rooms(PointsConfig(pixels=PixelFilterConfig(width=8, blocks=1)))


@pytest.fixture(scope="module")
def app(system: Forcing) -> AppConfig:
    return _dream_app("forcing.rooms", system)


def dreaming(pair: WorldPair) -> Dream:
    assert pair._dream and isinstance(pair._dream.world, Dream)
    return pair._dream.world


def place_of(pair: WorldPair) -> list[float]:
    """x, y and heading in degrees of who walks."""
    return stands_of(torch.tensor(pair.pose)[None])[0].tolist()


def test_a_level_is_dreamed_beside_its_game(app: AppConfig) -> None:
    assert app.levels and app.memory and app.game is None and not app.picture and not app.lacking
    pair, ahead = WorldPair(app), DOOM_ACTIONS.pack(DOOM_ACTIONS.action(["forward"], yaw=10.0))
    pair.begin(2, {"level": 2})
    assert pair._game and pair._dream
    game = pair._game.world
    level, pose = start_of("test", number=2)
    assert isinstance(game, Doom) and game.level.name == level.name
    assert np.array_equal(pair._dream.frame, pair._game.frame)
    assert place_of(pair) == pytest.approx(pose, abs=1)
    camera = dreaming(pair).session.camera
    assert camera is not None and len(pair._dream.start["around"]) == 3
    behind = camera.pose @ torch.diag(torch.tensor([-1.0, 1, -1, 1]))
    found = dreaming(pair).session.memory.recall(replace(camera, pose=behind), 1).rendering
    assert found is not None and (found.mask == 1).float().mean() > 0.5 and not found.dreamed.any()
    for _ in range(2):
        pair.advance(ahead)
    pair.look("both")
    first, second = pair.pictures
    assert first.shape == second.shape == (*SIZE, 3)
    pair.look("game")
    pair.look("dream")
    camera = dreaming(pair).session.camera
    assert camera is not None and np.allclose(camera.pose[0], pair._game.pose)
    drawn = pair.draw_map()
    assert drawn is not None and drawn.picture[..., 3].any()
    x, y, _ = place_of(pair)
    side = drawn.picture.shape[0] * drawn.scale
    assert drawn.left < x < drawn.left + side and drawn.top - side < y < drawn.top
    pair.close()


def test_the_page_is_told_of_the_points_that_are_kept(app: AppConfig) -> None:
    pair, ahead = WorldPair(app), DOOM_ACTIONS.pack(DOOM_ACTIONS.action(["forward"]))
    pair.begin(2, {"level": 2})
    pair.advance(ahead)
    memory, told = dreaming(pair).session.memory, pair.cloud(1)
    assert isinstance(memory, Clouds) and told and pair.pose is not None
    (kept,) = memory.rows
    there = np.isfinite(told.position).all(1)
    assert there.sum() == len(kept) > 0 and np.allclose(told.eyes, pair.pose[:3, 3], atol=1e-3)
    assert np.array_equal(told.position[there], kept.points().position.T)
    assert np.array_equal(told.position[::3], pair.cloud(3).position)  # type: ignore[union-attr]
    with torch.inference_mode():
        buckets = torch.arange(kept.slots // kept._size)
        kept._erase(buckets, lambda position, *_: position[0] > told.eyes[0])
    left = pair.cloud(1)
    assert left and 0 < np.isfinite(left.position).all(1).sum() == len(kept) < there.sum()
    pair.close()


def test_schedules_show_pictures_without_their_depth(app: AppConfig) -> None:
    for name, unfolded in app.schedules.items():
        row = next(unfolded(0, 0))
        assert row.dtype == np.uint8 and row.shape[2] == 3, name


def test_the_switch_reaches_the_cloud_and_outlasts_a_reset(app: AppConfig) -> None:
    pair = WorldPair(app)
    pair.begin(0, {"start": 0})
    pair.recall(False)
    pair.begin(0, {"start": 0})
    memory = dreaming(pair).session.memory
    assert isinstance(memory, Clouds) and not memory.recalling and len(memory.rows[0]) > 0
    pair.close()


def test_a_picture_is_seen_from_the_first_start(app: AppConfig, system: Forcing) -> None:
    pair = WorldPair(app)
    pair.begin(0, {"start": 0})
    pair.begin(0, {"image": np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)})
    dream = dreaming(pair)
    camera, memory = dream.session.camera, dream.session.memory
    assert system.world_spec is not None and camera is not None and isinstance(memory, Clouds)
    assert np.allclose(camera.pose[0], system.world_spec.poses[0]) and len(memory.rows[0]) > 0
    seen = {"image": pair.pictures[0], "world_from_camera": np.eye(4), "intrinsics": np.eye(3) * 9}
    dream.reset(seed=0, options=seen)
    assert dream.session.camera is not None and float(dream.session.camera.intrinsics[0, 0, 0]) == 9
    with pytest.raises(UserError, match="intrinsics is a finite 3x3 matrix, got one of shape"):
        dream.reset(seed=0, options=seen | {"intrinsics": np.eye(4)})
    pair.close()


def test_without_the_game_its_own_starts_do(system: Forcing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dreamwalk.worlds.doom", None)
    app = _dream_app("forcing.rooms", system)
    assert app.levels is None and app.game is None and "pip install vizdoom" in app.lacking
    pair = WorldPair(app)
    assert pair.views == ("dream",)
    pair.begin(3, {"start": 0})
    pair.close()
