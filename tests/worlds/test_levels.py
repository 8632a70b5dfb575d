import hashlib
from pathlib import Path

import numpy as np
import pytest
import vizdoom

from dreamwalk.errors import UserError
from dreamwalk.worlds.doom import Doom, draw_pose
from dreamwalk.worlds.levels import MAPS, home, level_for, level_named, split_seed
from dreamwalk.worlds.procedural import procedural
from dreamwalk.worlds.udmf import Cell, Panel, Thing, write_textmap

HOME = "963a7b7117c13ad22ca55e09bd76ad4e3f6d422bbbf4aa425a116ce0eeabe6cf"


def reachable(level) -> set[int]:
    reached, added = {0}, True
    while added:
        more = {r for d in level.doors if {d.first, d.second} & reached for r in (d.first, d.second)}
        added = not more <= reached
        reached |= more
    return reached


@pytest.mark.parametrize(
    "name",
    [
        "map:../../x",
        "map:MAP33",
        "map:MAP00",
        "map:map01",
        "map:E5M1",
        "map:E1M10",
        "map:",
        "map:MAP01 ",
        "map:\x00",
        "map",
        "procedural:",
        "procedural:²",
        "procedural:-1",
        "procedural:" + "9" * 5000,
        "home:1",
        "",
    ],
)
def test_levels_that_are_none_are_refused_before_an_engine_waits_for_them(name: str) -> None:
    with pytest.raises(UserError, match=r"unknown level .*: known are home"):
        Doom(name)


def test_every_map_that_is_known_is_there() -> None:
    folder = Path(vizdoom.__file__).parent
    for name in MAPS:
        assert lump((folder / level_named(f"map:{name}").game).read_bytes(), name.encode()) == b""


def lump(wad: bytes, name: bytes) -> bytes:
    """The data of a lump, by the directory at the end of the file."""
    count, at = np.frombuffer(wad, "<i4", 2, 4)
    for k in range(count):
        entry = wad[at + 16 * k : at + 16 * k + 16]
        if entry[8:].rstrip(b"\0") == name:
            offset, size = np.frombuffer(entry, "<i4", 2)
            return wad[offset : offset + size]
    raise KeyError(name)


def test_home_is_frozen() -> None:
    """The shipped weights have learnt this level by heart: change it and they must be trained again."""
    parts = lump(home().wad, b"TEXTMAP") + lump(home().wad, b"DECORATE")
    assert hashlib.sha256(parts).hexdigest() == HOME


def test_every_seed_is_one_connected_level() -> None:
    for seed in range(100):
        level = procedural(seed)
        assert len(level.rooms) >= 4
        assert reachable(level) == set(range(len(level.rooms))), seed
        assert len(level.doors) >= len(level.rooms) - 1
        pose = draw_pose(level, np.random.default_rng(seed))
        assert pose is not None
        assert level.room_at(*pose[:2]) is not None
    assert procedural(5).wad == procedural(5).wad != procedural(6).wad


def test_levels_have_loops() -> None:
    levels = [procedural(seed) for seed in range(50)]
    assert sum(len(level.doors) >= len(level.rooms) for level in levels) > 25


@pytest.mark.parametrize("seed", [0, 17, 42])
def test_the_engine_takes_them(seed: int) -> None:
    world = Doom(f"procedural:{seed}")
    level = world.level
    random = np.random.default_rng(seed)
    for _ in range(12):
        x, y, heading = draw_pose(level, random)
        _, info = world.reset(options={"pose": (x, y, heading)})
        assert np.allclose(info["world_from_camera"][:2, 3], [x, y], atol=1)  # it stands on whole units
        assert info["world_from_camera"][2, 3] - 41 in {cell.floor for cell in level.cells}
    world.close()


def test_one_can_walk_every_step_of_a_corridor() -> None:
    world = Doom("procedural:1")
    level = world.level
    door = level.doors[0]
    first, second = level.rooms[door.first], level.rooms[door.second]
    east = first.x1 <= second.x0
    heading = 0 if east else 90
    for start, goal, way in ((first, second, heading), (second, first, heading + 180)):
        begin = _in_line(start, door, east)
        world.reset(options={"pose": (*begin, way)})
        for _ in range(60):
            _, _, _, _, info = world.step(world.actions.action(["forward"]))
            if level.room_at(*info["world_from_camera"][:2, 3]) is goal:
                break
        assert level.room_at(*info["world_from_camera"][:2, 3]) is goal
    world.close()


def _in_line(room, door, east: bool) -> tuple[float, float]:
    """A place in a room straight before a door, near its edge."""
    if east:
        return (room.x1 - 40 if room.x1 < door.x else room.x0 + 40), door.y
    return door.x, (room.y1 - 40 if room.y1 < door.y else room.y0 + 40)


def test_splits_share_no_level() -> None:
    seeds = [
        split_seed(split, seed=0, number=k) for split in ("train", "validation", "test") for k in range(500)
    ]
    assert len(set(seeds)) == len(seeds)
    assert (
        level_for("procedural", split="test", seed=0, number=3).name
        == f"procedural:{split_seed('test', seed=0, number=3)}"
    )
    assert level_for("home", split="train", seed=0, number=3) is home()
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        split_seed("dev", seed=0, number=0)
    with pytest.raises(ValueError, match="unknown level 'procedural:x'"):
        level_named("procedural:x")


def test_touching_cells_open_and_panels_split_walls() -> None:
    cells = [Cell(0, 0, 128, 128), Cell(128, 32, 256, 96)]
    text = write_textmap(cells, [Thing(64, 64, 1)], panels=[Panel(0, 32, 0, 96, "DOKGRIR")]).decode()
    assert text.count("twosided=true") == 1
    assert text.count('texturemiddle="DOKGRIR"') == 1
    walls = text.count("texturemiddle")
    assert walls == 3 + 2 + 1 + 1 + 1 + 3 - 1
    assert text.count("sector{") == 2
