"""A point in a maze: walks keep clear of walls, and what crosses one is told."""

import numpy as np

from dreamwalk.worlds.mazes import Maze

CORNER = Maze(rows=("  ", "# "))


def test_walks_are_keyed_and_touch_no_wall() -> None:
    maze = Maze()
    walks = maze.walks(3, 200, 24)
    assert walks.shape == (200, 24, 2) and walks.dtype == np.float32
    assert np.array_equal(walks, maze.walks(3, 200, 24)) and not np.array_equal(walks, maze.walks(4, 200, 24))
    assert not maze.crosses(walks).any()
    assert np.linalg.norm(np.diff(walks, axis=1), axis=-1).max() <= maze.pace * 0.4 + 1e-6  # a cell is 0.4


def test_walks_arrive_and_stay() -> None:
    maze = Maze()
    walks = maze.walks(0, 100, 24)
    assert maze.arrives(walks, walks[:, -1]).all()
    assert np.array_equal(walks[:, -1], walks[:, -2])
    assert not np.array_equal(maze.walks(0, 100, 6)[:, -1], walks[:, -1])


def test_a_straight_line_through_a_wall_does_not_count() -> None:
    start, corner, goal = CORNER.place(np.array([[0, 0], [0, 1], [1, 1]]))
    around, through = np.stack([start, corner, goal]), np.stack([start, [-0.1, 0.1], goal])
    outside = np.stack([start, start - 2, goal])
    assert not CORNER.crosses(around).any() and CORNER.crosses(through).any()
    paths = np.stack([around, through, outside])
    assert CORNER.arrives(paths, goal).tolist() == [True, False, False]
    assert CORNER.inside(np.array([[0.5, 0.5], [-0.5, 0.5], [1.5, 0.5]])).tolist() == [True, False, False]


def test_what_comes_after_the_goal_does_not_matter() -> None:
    start, corner, goal = CORNER.place(np.array([[0, 0], [0, 1], [1, 1]]))
    assert CORNER.arrives(np.stack([start, corner, goal, goal + 3]), goal)
    assert CORNER.arrives(np.stack([start, start + 3]), start)


def test_a_picture_shows_walls_path_and_goal() -> None:
    picture = CORNER.picture(CORNER.walks(0, 1, 4)[0], np.array([0.5, 0.5]), side=40)
    assert picture.shape == (40, 40, 3) and picture[30, 10].tolist() == [90, 90, 90]
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3
