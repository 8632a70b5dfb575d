"""Levels from seeds: what can be walked, what cannot, and that depth is that of the map."""

import functools
import itertools
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import vizdoom

from dreamwalk.cameras import unproject
from dreamwalk.worlds import textures
from dreamwalk.worlds.doom import Doom, draw_pose, start_of
from dreamwalk.worlds.levels import level_for
from dreamwalk.worlds.procedural import procedural as draw_level
from dreamwalk.worlds.raycasting import RayCaster
from dreamwalk.worlds.scenery import LANDMARKS, PLAYER_START, SKY, STEP, Level, pack_level
from dreamwalk.worlds.udmf import Box, Cell, Thing
from dreamwalk.worlds.walkers import WALKERS

procedural = functools.cache(draw_level)
BODY_HEIGHT = 56
SEEDS = range(40)


def touching(a: Cell, b: Cell) -> bool:
    """Whether two cells share an edge."""
    x, y = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    return (x == 0 and y > 0) or (y == 0 and x > 0)


def walkable(level: Level) -> set[Cell]:
    """The cells that are reached from the first room by steps that one can climb both ways."""
    start = next(cell for cell in level.cells if cell.holds(*draw_pose(level, np.random.default_rng(0))[:2]))
    reached, front = {start}, [start]
    while front:
        here = front.pop()
        for cell in level.cells:
            free = min(here.ceiling, cell.ceiling) - max(here.floor, cell.floor)
            fits = free >= BODY_HEIGHT and abs(here.floor - cell.floor) <= STEP
            if cell not in reached and fits and touching(here, cell):
                reached.add(cell)
                front.append(cell)
    return reached


@pytest.mark.parametrize("seed", SEEDS)
def test_cells_never_overlap_and_every_room_is_reached(seed: int) -> None:
    level = procedural(seed)
    for a, b in itertools.combinations(level.cells, 2):
        assert not shared(a, b)
    reached, random = walkable(level), np.random.default_rng(seed)
    for room in level.rooms:
        assert sum(shared(room, c) for c in reached) > 0.6 * shared(room, room)
    for _ in range(25):
        x, y, _ = draw_pose(level, random)
        below = [c for c in level.cells if c.x0 - 16 < x < c.x1 + 16 and c.y0 - 16 < y < c.y1 + 16]
        covered = sum(overlap(c.x0, c.x1, x) * overlap(c.y0, c.y1, y) for c in below)
        assert covered == pytest.approx(32 * 32), "a body never stands in a wall"
        assert set(below) <= reached
    for door in level.doors:  # the middle of an L may bear a pillar
        x, y = round(door.x), round(door.y)
        assert any(shared(Box(x - 48, y - 48, x + 48, y + 48), c) for c in reached)
    for x, y, _ in level.landmarks:
        assert (x, y) in {spot[:2] for spot in level.obstacles} and level.room_at(x, y) is not None


def shared(a: Box, b: Box) -> int:
    return max(0, min(a.x1, b.x1) - max(a.x0, b.x0)) * max(0, min(a.y1, b.y1) - max(a.y0, b.y0))


def overlap(low: int, high: int, at: float) -> float:
    return max(0.0, min(high, at + 16) - max(low, at - 16))


def test_levels_differ_in_what_they_are_made_of() -> None:
    levels = [procedural(seed) for seed in SEEDS]
    cells = [cell for level in levels for cell in level.cells]
    assert len({room.wall for level in levels for room in level.rooms}) > 60
    assert len({cell.flat for cell in cells}) > 40
    assert sum(any(cell.top == SKY for cell in level.cells) for level in levels) > 30
    heights = [cell.ceiling - cell.floor for cell in cells if cell.top != SKY]
    assert max(heights) >= 320 and np.ptp([cell.floor for cell in cells]) > 150
    assert len(textures.WALLS) >= 80 and len(set(textures.FLOORS + textures.GROUNDS)) >= 40


def windows(level: Level) -> list[Cell]:
    """Openings between two rooms that are none to a body."""
    reached = walkable(level)
    shut = [c for c in level.cells if c not in reached and not any(shared(r, c) for r in level.rooms)]
    beside = lambda c: {r for r in level.rooms for b in reached if touching(b, c) and shared(r, b)}
    return [c for c in shut if len(beside(c)) > 1]


def test_one_sees_through_windows_and_does_not_walk_through_them() -> None:
    found = [(seed, cell) for seed in range(8) for cell in windows(procedural(seed))]
    assert len(found) > 6
    seed, window = found[0]
    world = Doom(f"procedural:{seed}")
    room = next(r for r in world.level.rooms if r.x1 == window.x0 or r.y1 == window.y0)
    x, y = window.middle
    east = room.x1 == window.x0
    pose = (room.x1 - 40, y, 0) if east else (x, room.y1 - 40, 90)
    _, info = world.reset(options={"pose": pose})
    assert info["depth"][36:60, 56:72].max() > 40 + (window.x1 - window.x0 if east else window.y1 - window.y0)
    for _ in range(30):
        _, _, _, _, info = world.step(world.actions.action(["forward"]))
    assert room.holds(*info["world_from_camera"][:2, 3])
    world.close()


@pytest.mark.parametrize("seed", [3, 8])
def test_depth_is_that_of_the_map(seed: int) -> None:
    """The engine knows nothing of the ray caster, and the two agree but for things that stand about."""
    world = Doom(f"procedural:{seed}")
    rays, off, same = RayCaster(world.level.cells), [], []
    edges_x = np.unique([(c.x0, c.x1) for c in world.level.cells])
    edges_y = np.unique([(c.y0, c.y1) for c in world.level.cells])
    planes = np.unique([(c.floor, c.ceiling) for c in world.level.cells])
    for k in range(8):
        world.reset(seed=k)
        _, _, _, _, info = world.step(world.actions.action(pitch=3.0 * k - 12))
        depth, pose, camera = info["depth"], info["world_from_camera"], info["intrinsics"]
        cast = rays.depth(pose, camera, depth.shape)
        same.append((cast == depth).mean())
        x, y, z = unproject(depth, intrinsics=camera, world_from_camera=pose)[(cast == depth) & (depth > 0)].T
        far = [abs(v[:, None] - known).min(1) for v, known in ((x, edges_x), (y, edges_y), (z, planes))]
        off.append(np.minimum.reduce(far))
    assert np.mean(same) > 0.93
    assert np.concatenate(off).max() < 0.05
    world.close()


def test_a_split_and_a_number_give_a_level_and_where_to_start() -> None:
    for number in range(4):
        level, (x, y, heading) = start_of("test", number=number)
        assert level == level_for("procedural", split="test", seed=0, number=number)
        assert level.room_at(x, y) is not None and level.holds_body(x, y)
        assert (x, y, heading) == start_of("test", number=number)[1]
    world = Doom(level)
    _, info = world.reset(options={"pose": (x, y, heading)})
    assert np.allclose(info["world_from_camera"][:2, 3], (x, y), atol=1)
    assert np.median(info["depth"]) > 150
    world.close()


def test_a_landmark_has_the_depth_at_which_it_stands() -> None:
    """A tree in the middle of a room: a sprite faces the camera, so all of it has one depth."""
    cells, marks = [Cell(0, 0, 768, 768, 0, 160)], ((384, 384, "leafy tree"),)
    things = [Thing(384, 384, LANDMARKS["leafy tree"].kind), Thing(64, 64, PLAYER_START)]
    world = Doom(Level("one tree", pack_level(cells, things), cells=tuple(cells), landmarks=marks))
    for pose in ((184, 384, 0), (384, 300, 75), (600, 640, -120), (100, 150, 40)):
        _, info = world.reset(options={"pose": pose})
        camera, depth = info["world_from_camera"], info["depth"]
        cast = RayCaster(cells).depth(camera, info["intrinsics"], depth.shape)
        tree = depth[depth < cast - 12]
        assert len(tree) > 60
        assert (abs(tree - ([384, 384] - camera[:2, 3]) @ camera[:2, 2]) < 0.01).mean() > 0.97
    world.close()


@pytest.mark.parametrize(
    ("row", "depth"),
    [
        (95, 40 * 64 / 47.5),  # the floor before the step
        (64, 128),  # the step's front
        (55, 24 * 64 / 7.5),  # the step
        (48, 384),  # the far wall
        (30, 0),  # the sky over it
        (19, 128),  # the wall over the opening
        (0, 88 * 64 / 47.5),  # the ceiling
    ],
)
def test_rays_meet_what_is_there(row: int, depth: float) -> None:
    """A room, and behind it a yard, a step higher and under a low sky."""
    cells = [Cell(0, 0, 256, 256, 0, 128), Cell(256, 64, 512, 192, 16, 96, top=SKY)]
    pose = np.array([[0, 0, 1, 128], [-1, 0, 0, 128], [0, -1, 0, 40], [0, 0, 0, 1]], np.float32)
    camera = np.array([[64, 0, 64], [0, 64, 48], [0, 0, 1]], np.float32)
    cast = RayCaster(cells).depth(pose, camera, (96, 128))
    assert cast[row, 64] == pytest.approx(depth, abs=0.01)
    assert cast[47, 2] == pytest.approx(128, abs=0.01), "beside the opening"
    assert not RayCaster(()).depth(pose, camera, (96, 128)).any()


def test_textures_are_there_and_have_the_sizes_that_are_said() -> None:
    wad = (Path(vizdoom.__file__).parent / "freedoom2.wad").read_bytes()
    count, at = struct.unpack("<ii", wad[4:12])
    entries = [struct.unpack("<ii8s", wad[at + 16 * k : at + 16 * k + 16]) for k in range(count)]
    lumps = {name.rstrip(b"\0").decode(): (offset, size) for offset, size, name in entries}
    start, sizes = lumps["TEXTURE1"][0], {}
    (many,) = struct.unpack("<i", wad[start : start + 4])
    for offset in struct.unpack(f"<{many}i", wad[start + 4 : start + 4 + 4 * many]):
        name, _, width, height = struct.unpack("<8sihh", wad[start + offset : start + offset + 16])
        sizes[name.rstrip(b"\0").decode()] = width, height
    for theme in textures.THEMES.values():
        assert {*theme.walls.values(), *theme.trims, *textures.CRATES} <= sizes.keys()
        assert all(sizes[name] == textures.size_of(name) for name in (*theme.features, *theme.doors))
    flats = {*textures.FLOORS, *textures.GROUNDS, *textures.CEILINGS, *textures.LAMPS}
    assert all(lumps[name][1] == 64 * 64 for name in flats)


def test_walkers_come_back_from_another_room() -> None:
    world, came_back = Doom("procedural:2"), 0
    for seed in range(3):
        walker = WALKERS["shuttle"](world.level, np.random.default_rng(seed))
        next(walker)
        _, info = world.reset(seed=seed)
        start, rooms = info["world_from_camera"][:2, 3], set()
        for _ in range(150):
            move = walker.send(info)
            _, _, _, _, info = world.step(world.actions.action(move.held, yaw=move.yaw))
            here = info["world_from_camera"][:2, 3]
            rooms.add(world.level.room_at(*here))
            if len(rooms - {None}) > 1 and math.dist(here, start) < 64:
                came_back += 1
                break
    world.close()
    assert came_back >= 2
