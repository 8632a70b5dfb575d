"""Exact depth of a level made of cells: every column of the picture is one ray through the map.

Cameras never roll, and pitch only shifts the picture, so all pixels of a column look along one line of the
map; the cells that it crosses, in order, tell where each pixel meets a floor, a ceiling, a step or a wall.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dreamwalk.worlds.scenery import SKY
from dreamwalk.worlds.udmf import Cell

FAR = 1e9


class RayCaster:
    """Depth in a level of cells that do not overlap; without cells, nothing is known."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        edges = np.array([(c.x0, c.x1, c.y0, c.y1) for c in cells], np.float64).reshape(-1, 4)
        self.x, self.y = edges[:, :2].T[:, None], edges[:, 2:].T[:, None]
        self.floor = np.array([c.floor for c in cells], np.float64)
        self.ceiling = np.array([c.ceiling for c in cells], np.float64)
        self.sky = np.array([c.top == SKY for c in cells], bool)

    def depth(
        self, world_from_camera: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]
    ) -> np.ndarray:
        """Planar depth `(h, w)` float32 at the pixels' centres; 0 is sky, or nothing at all."""
        height, width = size
        if not len(self.floor):
            return np.zeros(size, np.float32)
        pose = world_from_camera.astype(np.float64)
        across = (np.arange(width) + 0.5 - intrinsics[0, 2]) / intrinsics[0, 0]
        rise = -((np.arange(height) + 0.5 - intrinsics[1, 2]) / intrinsics[1, 1])[:, None]
        cells, enter, leave = self._crossed(pose, across)
        eye, depth, left = pose[2, 3], np.zeros(size), np.ones(size, bool)
        end, open_sky = np.zeros(width), np.zeros(width, bool)
        for k in range(cells.shape[1]):
            columns = np.flatnonzero(left.any(0))
            if not len(columns):
                break
            cell, start, stop = cells[columns, k], enter[columns, k], leave[columns, k]
            floor, ceiling, sky = self.floor[cell], self.ceiling[cell], self.sky[cell]
            gap, before, now = start > end[columns] + 1e-6, end[columns], left[:, columns]
            z = eye + rise * np.minimum(start, FAR)
            above = z > ceiling
            hit = now & (gap | (z < floor) | above)
            found = np.where(
                hit, np.where(gap, before, np.where(above & sky & open_sky[columns], 0, start)), 0
            )
            now &= ~hit
            z = eye + rise * stop
            low, high = now & (z < floor), now & (z > ceiling)
            met = np.where(low, floor, ceiling) - eye
            inside = np.where(high & sky, 0, np.divide(met, rise, out=np.zeros_like(z), where=low | high))
            depth[:, columns] += np.where(low | high, inside, found)
            left[:, columns] = now & ~(low | high)
            end[columns], open_sky[columns] = stop, sky
        return depth.astype(np.float32)

    def _crossed(self, pose: np.ndarray, across: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cells on each column's line `(w, k)`, nearest first, and the depths where it enters and leaves.

        After the last cell of a column one follows that is entered at infinity: the wall behind it.
        """
        ways = pose[:2, 2] + across[:, None] * pose[:2, 0]
        ways = np.where(abs(ways) < 1e-9, 1e-9, ways)[..., None]
        along_x = (self.x - pose[0, 3]) / ways[:, 0]
        along_y = (self.y - pose[1, 3]) / ways[:, 1]
        enter = np.maximum(np.maximum(np.minimum(*along_x), np.minimum(*along_y)), 0)
        leave = np.minimum(np.maximum(*along_x), np.maximum(*along_y))
        crossed = leave > enter + 1e-9
        some = np.flatnonzero(crossed.any(0))
        enter = np.where(crossed[:, some], enter[:, some], np.inf)
        enter = np.pad(enter, ((0, 0), (0, 1)), constant_values=np.inf)
        leave = np.pad(leave[:, some], ((0, 0), (0, 1)))
        order = np.argsort(enter, axis=1)[:, : int(crossed.sum(1).max()) + 1]
        cells = np.append(some, 0)[order]
        return cells, np.take_along_axis(enter, order, 1), np.take_along_axis(leave, order, 1)
