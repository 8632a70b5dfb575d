"""Tables of actions as spreadsheets and loggers write them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamwalk.data import vpt
from dreamwalk.data.tables import read_table
from dreamwalk.errors import UserError
from dreamwalk.published import oasis

CASES = Path(__file__).parents[1] / "cases" / "actions"
GOOD = [[0, -3.5], [1, 0], [0, 2.25]]
"""What every table of `TAKEN` says, in columns jump and yaw."""
TAKEN = {
    "plain": "jump,yaw\n0,-3.5\n1,0\n0,2.25\n",
    "no last line end": "jump,yaw\n0,-3.5\n1,0\n0,2.25",
    "a byte order mark": "\ufeffjump,yaw\n0,-3.5\n1,0\n0,2.25\n",
    "spaces": " jump , yaw\n0, -3.5\n 1 , 0\n0,\t2.25\n",
    "semicolons and decimal commas": "jump;yaw\n0;-3,5\n1;0\n0;2,25\n",
    "semicolons and decimal points": "jump;yaw\n0;-3.5\n1;0\n0;2.25\n",
    "tabs": "jump\tyaw\n0\t-3.5\n1\t0\n0\t2.25\n",
    "bars": "jump|yaw\n0|-3.5\n1|0\n0|2.25\n",
    "Excel's hint": "sep=;\njump;yaw\n0;-3,5\n1;0\n0;2,25\n",
    "quotes": '"jump","yaw"\n"0","-3.5"\n"1","0"\n"0","2.25"\n',
    "quoted decimal commas": 'jump;yaw\n"0";"-3,5"\n1;0\n0;"2,25"\n',
    "DOS": "jump,yaw\r\n0,-3.5\r\n1,0\r\n0,2.25\r\n",
    "doubled line ends": "jump,yaw\r\r\n0,-3.5\r\r\n1,0\r\r\n0,2.25\r\r\n",
    "an old Mac": "jump,yaw\r0,-3.5\r1,0\r0,2.25\r",
    "words": "jump,yaw\nFALSE,-3.5\ntrue,0\nFalse,2.25\n",
    "more words": "jump,yaw\noff,-3.5\nYes,0\nno,2.25\n",
    "exponents and signs": "jump,yaw\n+0,-35e-1\n1.0,0.0\n0,+2.25E0\n",
    "a typographer's minus": "jump,yaw\n0,−3.5\n1,0\n0,2.25\n",
    "trailing blank rows": "jump,yaw\n0,-3.5\n1,0\n0,2.25\n\n,\n,\n\n",
    "trailing separators": "jump,yaw,\n0,-3.5,\n1,0,\n0,2.25,\n",
    "empty cells": "jump,yaw\n,-3.5\n1,\n,2.25\n",
    "a column without a name": ",jump,yaw\n0,0,-3.5\n1,1,0\n2,0,2.25\n",
}


@pytest.mark.parametrize("text", TAKEN.values(), ids=list(TAKEN))
def test_tables_that_are_taken(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.actions.csv"
    file.write_bytes(text.encode())
    table = read_table(file)
    assert table.names == ("jump", "yaw")
    assert table.values.tolist() == GOOD
    assert table.values.dtype == np.float32
    file.write_bytes(text.removeprefix("\ufeff").encode("utf-16"))
    assert read_table(file).values.tolist() == GOOD


def test_what_was_taken_for_what_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.actions.csv"
    file.write_text(TAKEN["empty cells"])
    assert read_table(file).notes == ("empty cells are taken for 0 (3)",)
    file.write_text(TAKEN["a column without a name"])
    assert read_table(file).notes == ("column 1 has no name and is not used",)


REFUSED = {
    "": "is empty",
    "\n\n": "is empty",
    "\ufeff": "is empty",
    "jump,yaw\n": "has no rows",
    "jump,yaw\n\n,\n": "has no rows",
    "0,-3\n1,2\n": "row 1 has numbers: write a row of names above it",
    "true,-3\n1,2\n": "row 1 has numbers",
    "jump,yaw,jump\n0,1,2\n": "row 1: two columns are called 'jump'",
    "jump, jump \n0,1\n": "row 1: two columns are called 'jump'",
    "jump,yaw\n0,1\n0,nan\n": "row 3, column 'yaw' is nan",
    "jump,yaw\n0,1\n\n-inf,0\n": "row 4, column 'jump' is -inf",
    "jump,yaw\n0,1e39\n": r"row 2, column 'yaw' is 1e\+39",
    "jump,yaw\n0,left\n": "row 2, column 'yaw' is neither a number nor true or false: 'left'",
    "jump,yaw\n0,1_000\n": "row 2, column 'yaw' is neither",
    "jump,yaw\n0,#N/A\n": "row 2, column 'yaw' is neither",
    "jump;yaw\n0;1.234,5\n": "row 2, column 'yaw' is neither",
    "jump,yaw\n0,-3,5\n": "row 2 has 3 cells, the names are 2 .decimal commas need semicolons",
    "jump,yaw\n0,1\n1\n": "row 3 has 1 cells, the names are 2",
    'jump,yaw\n0,"1\n': "row 2: unexpected end of data",
}


@pytest.mark.parametrize("text", REFUSED)
def test_tables_that_are_refused_with_file_row_and_column(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.actions.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=rf"a\.actions\.csv'.*({REFUSED[text]})"):
        read_table(file)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nan", "row 7, column 'yaw' is nan"),
        ("inf", "row 7, column 'yaw' is inf"),
        ("noheader", "row 1 has numbers"),
        ("bom", ("jump", "yaw")),
        ("spaces", ("jump", "yaw")),
        ("semicolon", ("jump", "yaw")),
    ],
)
def test_the_cases(name: str, said: Any) -> None:
    file = CASES / f"{name}.actions.csv"
    if isinstance(said, str):
        with pytest.raises(UserError, match=rf"{name}\.actions\.csv', {said}"):
            read_table(file)
        return
    table, half = read_table(file), 0.5 * (name == "semicolon")
    assert table.names == said
    rows = np.arange(len(table.values))
    assert table.values[:, 0].tolist() == (rows % 2).tolist()
    assert table.values[:7, 1].tolist() == [
        -3 - half,
        -2 - half,
        -1 - half,
        0 + half,
        1 + half,
        2 + half,
        3 + half,
    ]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("jump,l\xe4ge\n0,1\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.csv' is not text in UTF-8: save it as such"):
        read_table(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes(b"jump,yaw\n0,\x00\n")
    with pytest.raises(UserError, match=r"b\.csv', row 2"):
        read_table(tmp_path / "b.csv")


OBJECTS = {
    "": "is empty",
    '{"jump": 1}\n{"jump": ': "row 2 is not valid JSON",
    '{"jump": 1}\n[1]': r"row 2 must be an object of names and numbers, got \[1\]",
    '{"jump": [1]}': r"row 1, column 'jump' is neither a number nor true or false: \[1\]",
    '{"jump": 1}\n\n{"yaw": NaN}': "row 3, column 'yaw' is nan",
    '{"yaw": -Infinity}': "row 1, column 'yaw' is -inf",
    '{"yaw": 1' + "0" * 400 + "}": "row 1, column 'yaw' is inf",
    '{"yaw": "left"}': "row 1, column 'yaw' is neither",
}


@pytest.mark.parametrize("text", OBJECTS)
def test_lines_of_json(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(text)
    with pytest.raises(UserError, match=rf"a\.jsonl'.*{OBJECTS[text]}"):
        read_table(file)
    file.write_text('\ufeff{"jump": false, " yaw": "-3.5"}\n{"jump": true}\n{"yaw": 2.25, "jump": null}\n\n')
    table = read_table(file)
    assert (table.names, table.values.tolist()) == (("jump", "yaw"), GOOD)


def test_arrays(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    for array, said in (
        (np.zeros(5), r"must be an array of numbers \(frames, columns\), got float64 \(5,\)"),
        (np.array([["a"]]), "must be an array of numbers"),
        (np.zeros((0, 2)), "has no rows"),
        (np.array([[0, 1], [np.nan, 0]]), "row 1, column 0 is nan"),
        (np.array([[0, 1e39]]), r"row 0, column 1 is 1e\+39"),
    ):
        np.save(file, array)
        with pytest.raises(UserError, match=rf"a\.npy'.*{said}"):
            read_table(file)
    file.write_bytes(b"?")
    with pytest.raises(UserError, match=r"a\.npy' is not an array that numpy\.save wrote"):
        read_table(file)
    np.save(file, np.array([[True, False]]))
    assert read_table(file).values.tolist() == [[1, 0]]


def recorded(tmp_path: Path, rows: list[dict[str, Any]]) -> np.ndarray:
    """The vectors of a recording in VPT's layout; what a row leaves out is nothing."""
    nothing = {"x": 640.0, "y": 360.0, "dx": 0.0, "dy": 0.0, "buttons": [], "newButtons": []}
    full = [
        {"hotbar": 0}
        | row
        | {"mouse": nothing | row.get("mouse", {}), "keyboard": {"keys": row.get("keys", [])}}
        for row in rows
    ]
    file = tmp_path / "a.actions.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in full))
    return read_table(file).values


def held(vectors: np.ndarray) -> list[set[str]]:
    return [{n for n, v in zip(vpt.BUTTONS, row, strict=False) if v} for row in vectors]


def test_vpt_rows_lead_into_the_next_frame(tmp_path: Path) -> None:
    assert vpt.SCHEMA == oasis.SCHEMA
    keys = ["w", "left.control", "1", "escape", "f3"]
    rows = [{"keys": [f"key.keyboard.{key}" for key in keys], "mouse": {"buttons": [1, 2, 7]}}, {}, {}]
    vectors = recorded(tmp_path, rows)
    assert vectors.shape == (3, 25)
    assert held(vectors) == [set(), {"forward", "sprint", "hotbar.1", "escape", "place", "pick"}, set()]


def test_vpt_attack_that_is_stuck_is_let_go(tmp_path: Path) -> None:
    first = {"mouse": {"buttons": [0], "newButtons": [0]}}
    still, again = {"mouse": {"buttons": [0]}}, {"mouse": {"buttons": [0], "newButtons": [0]}}
    let_go = [set(), set(), set(), {"attack"}, {"attack"}]
    assert held(recorded(tmp_path, [first, still, again, still, {}])) == let_go
    assert held(recorded(tmp_path, [still, still, {}])) == [set(), {"attack"}, {"attack"}]


def test_vpt_wheel_camera_and_windows(tmp_path: Path) -> None:
    rows = [{"hotbar": 2}, {"hotbar": 2}, {"hotbar": 8}, {"hotbar": 8}, {}]
    assert held(recorded(tmp_path, rows))[:4] == [set(), set(), set(), {"hotbar.9"}]
    turns = [{"dx": 20, "dy": 10}, {"dx": 20, "dy": 10}, {"dx": -2000, "dy": 4}, {"dx": 0}]
    rows = [{"mouse": turn, "isGuiOpen": k == 1} for k, turn in enumerate(turns)]
    vectors = recorded(tmp_path, rows)
    assert vectors[:, -2:] == pytest.approx(np.array([[0, 0], [3, -1.5], [0, 0], [0, -0.6]]), abs=1e-5)
    assert read_table(tmp_path / "a.actions.jsonl").notes == (
        "a window is open in 1 frames: the mouse does not turn there",
    )


@pytest.mark.parametrize(
    "row", [{"jump": 1}, {"mouse": {}, "keyboard": {}}, {"mouse": {"buttons": 3}, "keyboard": {"keys": 4}}]
)
def test_vpt_rows_of_another_layout(tmp_path: Path, row: dict[str, Any]) -> None:
    recorded(tmp_path, [{}])
    file = tmp_path / "a.actions.jsonl"
    file.write_text(file.read_text() + "\n" + json.dumps(row))
    with pytest.raises(UserError, match=r"a\.actions\.jsonl', row 2 is not in VPT's layout, as row 1 is"):
        read_table(file)
