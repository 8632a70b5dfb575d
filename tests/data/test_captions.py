"""What captions say is what happens."""

import numpy as np
import pytest

from dreamwalk.data.captions import caption, motions, phases, vocabulary
from dreamwalk.evaluation.prompt_adherence import caption_facts
from dreamwalk.worlds.doom import pose_matrix
from dreamwalk.worlds.levels import home, level_named

MARBLE = (160.0, 512.0)
"""In the green marble room of home, west of its blue torch."""


def walk(steps: list[tuple[float, float, float]], *, heading: float = 0.0) -> np.ndarray:
    """Poses from (units ahead, units to the right, degrees to the left) per step."""
    x, y = MARBLE
    poses = [pose_matrix((x, y, 41.0), heading)]
    for ahead, right, left in steps:
        angle = np.deg2rad(heading)
        x += ahead * np.cos(angle) + right * np.sin(angle)
        y += ahead * np.sin(angle) - right * np.cos(angle)
        heading += left
        poses.append(pose_matrix((x, y, 41.0), heading))
    return np.stack(poses)


@pytest.mark.parametrize(
    ("step", "motion"),
    [
        ((8, 0, 0), "ahead"),
        ((-8, 0, 0), "back"),
        ((0, 8, 0), "right"),
        ((0, -8, 0), "left"),
        ((0, 0, 8), "turn left"),
        ((0, 0, -8), "turn right"),
        ((8, 0, 8), "bear left"),
        ((0, 0, 0), "still"),
    ],
)
@pytest.mark.parametrize("heading", [0.0, 200.0])
def test_every_motion_has_its_name(step: tuple[float, float, float], motion: str, heading: float) -> None:
    assert set(motions(walk([step] * 12, heading=heading))) == {motion}


def test_phases_follow_one_another_and_cover_all() -> None:
    facts = phases(walk([(8, 0, 0)] * 12 + [(8, 0, 6)] + [(8, 0, 0)] * 5 + [(0, 0, -8)] * 14))
    assert [phase.motion for phase in facts] == ["ahead", "turn right"]
    assert facts[0].start == 0 and facts[-1].stop == 32 and facts[0].stop == facts[1].start


def test_a_caption_names_motion_room_and_what_comes_into_view() -> None:
    poses = walk([(6, 0, 0)] * 10 + [(0, 0, -2.2)] * 20, heading=150.0)
    for seed in range(20):
        words = caption(home(), poses, seed=seed)
        assert "green" in words and "right" in words and "left" not in words
        assert words.endswith("torch")
        assert "pillar" not in words
    assert "golden pillar" in caption(home(), poses, placed=np.arange(31) == 12)
    assert len({caption(home(), poses, seed=seed) for seed in range(20)}) > 5


def test_a_picture_has_a_caption() -> None:
    words = caption(home(), walk([]), seed=1)
    assert "green" in words and "torch" not in words


@pytest.mark.parametrize("name", ["home", "procedural:5", "procedural:11"])
def test_the_vocabulary_has_every_word_of_the_captions_and_few_others(name: str) -> None:
    kind, level = name.partition(":")[0], level_named(name)
    random, said = np.random.default_rng(3), set()
    for seed in range(400):
        room = level.rooms[seed % len(level.rooms)]
        x, y, heading = (
            random.uniform(room.x0, room.x1),
            random.uniform(room.y0, room.y1),
            random.uniform(0, 360),
        )
        steps, poses = random.integers(-1, 2, (4, 3)) * (8, 8, 6), [pose_matrix((x, y, 41.0), heading)]
        for ahead, right, left in steps.repeat(9, 0)[: 0 if seed % 9 == 0 else None]:
            angle = np.deg2rad(heading)
            x += ahead * np.cos(angle) + right * np.sin(angle)
            y += ahead * np.sin(angle) - right * np.cos(angle)
            heading += left
            poses.append(pose_matrix((x, y, 41.0), heading))
        placed = np.select([np.arange(len(poses)) == k for k in (3, 9)], (1, -1))
        said |= set(caption(level, np.stack(poses), placed=placed, seed=seed).replace(",", "").split())
    known = {word for phrases in vocabulary(kind).values() for phrase in phrases for word in phrase.split()}
    for door in level.doors:
        said |= set(caption(level, pose_matrix((door.x, door.y, 41.0), 0.0)[None]).split())
    assert said <= known
    assert len(said) > 40 and (kind == "procedural" or known - said <= {"an"})


def test_facts_are_those_of_the_caption() -> None:
    facts = caption_facts(home(), walk([(6, 0, 0)] * 12 + [(0, 0, 8)] * 20))
    assert (facts.turn, facts.room, facts.walks) == (1, "green marble", None)
    assert caption_facts(home(), walk([(0, 0, -8)] * 20)).walks is False
    assert caption_facts(home(), walk([(2, 0, 0)] * 10 + [(6, 0, 0)] * 20)).walks is True
