"""A point in a maze: the smallest world to plan in, after Maze2D (D4RL, arXiv 2004.07219).

Positions are `(x, y)` in [-1, 1], x to the right and y down. Walks are ways of equal steps: `t` waypoints are
a video of `t` frames of one pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

CORRIDORS = ("     ", " # # ", " #   ", "   # ", " #   ")
"""Four ways round: `#` is wall, as is everything outside."""


@dataclass(frozen=True)
class Maze:
    """Square cells, row by row; `pace` is how many cells a walk goes from a waypoint to the next."""

    rows: tuple[str, ...] = CORRIDORS
    pace: float = 0.7
    wander: float = 0.25
    """How far from the middle of a cell walks pass, at most, in cells; below 0.5 they never touch a wall."""

    @property
    def free(self) -> np.ndarray:
        """Cells that one can be in, bool `(n, n)`."""
        return np.array([[cell != "#" for cell in row] for row in self.rows])

    def place(self, cells: np.ndarray) -> np.ndarray:
        """Positions `(..., 2)` of cells `(row, column)` `(..., 2)`; a cell's middle is a whole number."""
        return (2 * cells[..., ::-1] + 1) / len(self.rows) - 1

    def walks(self, seed: int, n: int, steps: int) -> np.ndarray:
        """Ways from anywhere to anywhere, each a shortest one, `(n, steps, 2)` float32.

        What arrives early stays; what is too far breaks off on its way.
        """
        rng = np.random.default_rng(seed)
        cells = np.argwhere(self.free)
        ways = {int(end): self._next(tuple(cells[end])) for end in range(len(cells))}
        walks = np.empty((n, steps, 2), np.float32)
        for walk in walks:
            start, end = rng.integers(len(cells), size=2)
            way = [tuple(cells[start])]
            while way[-1] != tuple(cells[end]):
                options = ways[int(end)][way[-1]]
                way.append(options[rng.integers(len(options))])
            corners = np.array(way) + rng.uniform(-self.wander, self.wander, (len(way), 2))
            walk[:] = self.place(_even(corners, self.pace, steps))
        return walks

    def inside(self, positions: np.ndarray) -> np.ndarray:
        """Whether positions `(..., 2)` are in no wall, bool `(...)`."""
        n = len(self.rows)
        cells = np.floor((positions[..., ::-1] + 1) / 2 * n).astype(int)
        row, column = cells.clip(0, n - 1)[..., 0], cells.clip(0, n - 1)[..., 1]
        return np.asarray(self.free[row, column] & (cells >= 0).all(-1) & (cells < n).all(-1))

    def crosses(self, path: np.ndarray) -> np.ndarray:
        """Which of the lines between the waypoints `(..., t, 2)` touch a wall, bool `(..., t - 1)`."""
        share = np.linspace(0, 1, 33)[:, None]
        line = path[..., :-1, None, :] * (1 - share) + path[..., 1:, None, :] * share
        return np.asarray(~self.inside(line).all(-1))

    def arrives(self, path: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Whether paths `(..., t, 2)` come within half a cell of goals `(..., 2)` before touching a wall."""
        near = np.linalg.norm(path - goal[..., None, :], axis=-1) < 1 / len(self.rows)
        hit = np.logical_or.accumulate(self.crosses(path), axis=-1)
        return np.asarray((near[..., 1:] & ~hit).any(-1) | near[..., 0])

    def picture(self, path: np.ndarray, goal: np.ndarray, *, side: int = 180) -> np.ndarray:
        """A path `(t, 2)`, blue at its start and red at its end, and its goal, a ring; uint8 `(h, w, 3)`."""
        picture = Image.fromarray(np.where(self.free, 255, 90).astype(np.uint8)).convert("RGB")
        picture = picture.resize((side, side), Image.Resampling.NEAREST)
        draw, points = ImageDraw.Draw(picture), (path + 1) / 2 * side
        for i, point in enumerate(points):
            age = i / max(len(points) - 1, 1)
            colour = (int(255 * age), 0, int(255 * (1 - age)))
            draw.line([*points[max(i - 1, 0)], *point], fill=colour, width=2)
            draw.ellipse([*(point - 3), *(point + 3)], fill=colour)
        middle, radius = (goal + 1) / 2 * side, side / len(self.rows) / 2
        draw.ellipse([*(middle - radius), *(middle + radius)], outline=(0, 130, 0), width=2)
        return np.asarray(picture)

    def _next(self, end: tuple[int, int]) -> dict[tuple[int, int], list[tuple[int, int]]]:
        """Of every cell, the neighbours that are one step nearer to a cell."""
        distance, front = {end: 0}, [end]
        nearer: dict[tuple[int, int], list[tuple[int, int]]] = {end: []}
        for cell in front:  # breadth first; the list grows as it is read
            for step in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                other = (cell[0] + step[0], cell[1] + step[1])
                if not self.inside(self.place(np.array(other))):
                    continue
                if other not in distance:
                    distance[other], nearer[other] = distance[cell] + 1, []
                    front.append(other)
                if distance[other] == distance[cell] + 1:
                    nearer[other].append(cell)
        return nearer


def _even(corners: np.ndarray, pace: float, steps: int) -> np.ndarray:
    """Points `(steps, 2)` at equal distances along a line through corners, the last one again and again."""
    lengths = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    along = np.concatenate([[0], np.cumsum(lengths)])
    wanted = np.minimum(pace * np.arange(steps), along[-1])
    return np.stack([np.interp(wanted, along, corners[:, axis]) for axis in range(2)], axis=1)
