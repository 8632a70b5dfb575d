"""Recordings of people who play Minecraft, in the layout of VPT (github.com/openai/Video-Pre-Training).

A line of JSON a frame, 20 a second, says what was held and done *at* it: what led into a frame stands in the
line before, so lines move down by one here. What their loader (`data_loader.py`) mends is mended too:

    attack stuck    a recording that begins with a click of button 0 alone shows it held until the next click
    hotbar          the wheel changes it without a key: the slot is taken from `hotbar`, when it changes
    camera          `dx` and `dy` (`x` and `y` add up), in pixels of which 2400 are a whole turn; in an open
                    window they move a pointer, and are taken for 0, as are more than half a turn in a frame
    pointer         the videos lack it: in an open window one is drawn where `x` and `y` say

Frames in which nothing is done are kept: their loader drops them to train a player, and a dream must know how
it looks to stand still.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dreamwalk.errors import UserError
from dreamwalk.world import ActionSchema

SLOTS = {str(slot): f"hotbar.{slot}" for slot in range(1, 10)}
MOVES = {"w": "forward", "s": "back", "a": "left", "d": "right", "space": "jump"}
HOLDS = {"left.shift": "sneak", "left.control": "sprint"}
KEYS = MOVES | HOLDS | {"q": "drop", "e": "inventory", "f": "swap", "escape": "escape"} | SLOTS
"""Their names of keys, less `key.keyboard.`, and ours."""
MOUSE = {0: "attack", 1: "place", 2: "pick"}
OTHERS = ("attack", "drop", "inventory", "swap", "pick", "escape")
BUTTONS = ("forward", "back", "left", "right", "place", "jump", "sneak", "sprint", *OTHERS, *SLOTS.values())
SCHEMA = ActionSchema(BUTTONS, ("yaw", "pitch"), (20.0, 20.0))
"""As Oasis, which was trained on such recordings, is played here: 20 degrees a frame are the most."""
DEGREES = 360 / 2400
HEIGHT = 720
"""Of the pictures in whose pixels `x` and `y` are."""


def is_vpt(row: dict[str, Any]) -> bool:
    """Whether a line is of this layout."""
    return isinstance(row.get("mouse"), dict) and isinstance(row.get("keyboard"), dict)


def read_vpt(
    rows: list[tuple[int, dict[str, Any]]], file: Path
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Numbered lines as float32 `(frames, 25)` in the columns of `SCHEMA`, `Table.pointers`, and notes.

    UserError for the first line that is of another layout.
    """
    order = {name: k for k, name in enumerate(SCHEMA.buttons + SCHEMA.axes)}
    values = np.zeros((len(rows) + 1, len(order)), np.float32)
    pointers, stuck, slot = np.full((len(rows), 2), np.nan, np.float32), False, None
    for k, (number, row) in enumerate(rows):
        try:
            mouse = row["mouse"]
            held, clicks = set(mouse["buttons"]), mouse.get("newButtons", [])
            stuck = clicks == [0] if k == 0 else stuck and 0 not in clicks
            names = {KEYS.get(key.removeprefix("key.keyboard."), "") for key in row["keyboard"]["keys"]}
            names |= {MOUSE.get(button, "") for button in held - ({0} if stuck else set())}
            now = row.get("hotbar", 0)
            if slot is not None and now != slot:
                names.add(f"hotbar.{now + 1}")
            slot = now
            turn = np.array([mouse["dx"], -mouse["dy"]], np.float32) * DEGREES
            turn[abs(turn) > 180] = 0  # the pointer came back into the game
            if row.get("isGuiOpen"):
                pointers[k] = np.array([mouse.get(axis, np.nan) for axis in "xy"], np.float32) / HEIGHT
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise UserError(f"'{file}', row {number} is not in VPT's layout, as row 1 is ({what})") from None
        for name in names & order.keys():
            values[k + 1, order[name]] = 1
        if not row.get("isGuiOpen"):
            values[k + 1, -2:] = turn
    if not np.isfinite(values).all():
        number = rows[int(np.argwhere(~np.isfinite(values))[0, 0]) - 1][0]
        raise UserError(f"'{file}', row {number}: dx and dy of the mouse must be numbers")
    windows = sum(bool(row.get("isGuiOpen")) for _, row in rows)
    notes = (f"a window is open in {windows} frames: the mouse does not turn there",) if windows else ()
    return values[:-1], pointers, notes


def draw_pointer(picture: np.ndarray, place: np.ndarray) -> np.ndarray:
    """A picture uint8 `(h, w, 3)` with an arrow at `place`, x and y as shares of its height; nan for none."""
    if not np.isfinite(place).all():
        return picture
    row, column = np.mgrid[:16, :12]
    arrow = (column <= 0.75 * row) & (row + 0.6 * column <= 15)
    inner = arrow & (column >= 1) & (column <= 0.75 * row - 1) & (row + 0.6 * column <= 14)
    x, y = (np.clip(place, -1, 10) * len(picture)).astype(int)
    rows, columns = (np.nonzero(arrow)[axis] + start for axis, start in ((0, y), (1, x)))
    inside = (rows >= 0) & (rows < picture.shape[0]) & (columns >= 0) & (columns < picture.shape[1])
    drawn = picture.copy()
    drawn[rows[inside], columns[inside]] = np.where(inner[arrow], 255, 0)[inside, None]
    return drawn
