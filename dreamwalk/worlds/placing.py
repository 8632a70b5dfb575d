"""What `place` puts down and takes away: which one a press acts on, and which pixels show one."""

from __future__ import annotations

import numpy as np

from dreamwalk.cameras import camera_rays
from dreamwalk.world import Info
from dreamwalk.worlds.scenery import PLACED

PLACE = 4
"""Which number of Doom's actions puts things down and takes them away."""
TAKEN_WITHIN = 96.0
"""A pillar whose middle is so near ahead, in units, is taken away by a press."""
BESIDE = PLACED.radius + 4
"""How far to the side of the line of sight it may stand."""
WIDE, HIGH = (-18.0, 21.0), (-2.0, 53.0)
"""Edges of its picture to the right and up from the middle of its foot, in units."""
SAME_DEPTH = 4.0
"""Pixels that show it have its depth, to within half a step of the engine's depth buffer."""


def placed_mask(position: np.ndarray, info: Info) -> np.ndarray:
    """Which pixels show a pillar that stands at `position` `(3,)`: bool `(h, w)`.

    `info` has depth `(h, w)`, intrinsics and `world_from_camera`. A sprite faces the camera: all of it has
    one depth. Where nothing else of just that depth is beside it, this is exact up to mixed pixels.
    """
    depth, pose = info["depth"], info["world_from_camera"]
    right, down, along = (np.asarray(position, np.float64) - pose[:3, 3]) @ pose[:3, :3]
    if along <= 1:
        return np.zeros(depth.shape, bool)
    rays = camera_rays(info["intrinsics"], depth.shape)
    across, up = rays[..., 0] * along - right, down - rays[..., 1] * along
    in_box = (across > WIDE[0]) & (across < WIDE[1]) & (up > HIGH[0]) & (up < HIGH[1])
    return in_box & (abs(depth - along) < SAME_DEPTH)


def shown_pixels(info: Info) -> np.ndarray:
    """How many pixels show each of `info["placed"]` `(k, 3)`, `(k,)`."""
    return np.array([placed_mask(position, info).sum() for position in info["placed"]], int)


def close_ahead(info: Info) -> int | None:
    """Which of `info["placed"]` a press takes away: the nearest in reach ahead that is in view; or None."""
    pose, best = info["world_from_camera"], None
    for index, position in enumerate(info["placed"]):
        right, _, along = (position - pose[:3, 3]) @ pose[:3, :3]
        in_reach = 0 < along < TAKEN_WITHIN and abs(right) < BESIDE
        if in_reach and (best is None or along < best[0]) and placed_mask(position, info).any():
            best = along, index
    return None if best is None else best[1]


def has_room(info: Info) -> bool:
    """Whether a pillar fits ahead: nothing seen in the box that it would fill, give or take."""
    depth, rays = info["depth"], camera_rays(info["intrinsics"], info["depth"].shape)
    across, down = rays[..., 0] * depth, rays[..., 1] * depth
    in_box = (depth > 0) & (depth < 4 * PLACED.radius) & (abs(across) < BESIDE) & (abs(down) < 15)
    return not in_box.any()
