"""A saved session goes on as if it had never stopped."""

from pathlib import Path

import pytest
import torch
from box_room import AHEAD, STILL, dream_of_rooms, walk

from dreamwalk.errors import UserError
from dreamwalk.systems.saved_sessions import NAME, open_session, save_session


@torch.inference_mode()
def test_a_saved_session_goes_on_bit_equal(tmp_path: Path) -> None:
    system = dream_of_rooms()
    session = system.begin(walk([(0, 0, 0)]), seed=5)
    for action in (AHEAD, STILL, STILL):
        system.advance(session, action)
    save_session(session, tmp_path / "walk")
    opened = open_session(system, tmp_path / "walk")
    for action in (AHEAD, AHEAD, STILL):
        latents = [system.advance(each, action) for each in (session, opened)]
        assert torch.equal(*latents)
        assert session.shown is not None and opened.shown is not None
        assert torch.equal(session.shown, opened.shown)
    assert session.memory.rows[0].points().time.equal(opened.memory.rows[0].points().time)


@torch.inference_mode()
def test_broken_folders_get_one_sentence(tmp_path: Path) -> None:
    system = dream_of_rooms()
    with pytest.raises(UserError, match="session"):
        open_session(system, tmp_path)
    save_session(system.begin(walk([(0, 0, 0)])), tmp_path)
    (tmp_path / "cloud-0.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cloud-0"):
        open_session(system, tmp_path)
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:999])
    with pytest.raises(UserError, match="session"):
        open_session(system, tmp_path)
