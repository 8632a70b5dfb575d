"""What `play` shows of a system, from what its weight file says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient
from toy import Toy, toy_system, with_map

from dreamwalk.cli import main
from dreamwalk.commands.play import open_app
from dreamwalk.data.writing import write_clips
from dreamwalk.serve.app import build_app
from dreamwalk.serve.world_pair import WorldPair
from dreamwalk.systems import nextframe
from dreamwalk.systems.autoencode import AutoencodeConfig
from dreamwalk.training.fit import fit
from dreamwalk.training.run import Run
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json
from dreamwalk.world import ActionSchema


def saved(folder: Path, config: nextframe.NextFrameConfig | None = None, **world_spec: object) -> Path:
    """A weight file of a tiny dream."""
    system = toy_system(config)
    arrays, about = replace(system.world_spec, **world_spec).pack()  # type: ignore[type-var]
    metadata = {"system": "nextframe", "config": to_json(system.config), "world_spec": about}
    files.save(folder / "dream.safetensors", system.state_dict() | arrays, metadata=metadata)
    return folder / "dream.safetensors"


@pytest.mark.parametrize(
    ("world", "level", "game"),
    [
        ("doom", "home", True),
        ("doom", "map:MAP01", True),
        ("doom", "procedural", False),
        ("videos", "home", False),
        ("videos", "mine", False),
        ("game", "ALE/Pong-v5", False),
        ("", "", False),
    ],
)
def test_only_a_dream_of_a_level_of_doom_has_a_real_game(
    world: str, level: str, game: bool, tmp_path: Path
) -> None:
    stage = open_app(str(saved(tmp_path, world=world, level=level)), "cpu")
    assert (stage.game is not None) == game
    levels = (world, level) == ("doom", "procedural")  # each seed has a game of its own
    assert (stage.levels is not None) == levels
    with TestClient(build_app(stage)) as client:
        assert client.get("/api/stage").json()["game"] == (game or levels)
    if not game:
        scene = WorldPair(stage)
        assert scene.views == (("dream", "game", "both") if levels else ("dream",))
        scene.begin(1, stage.starts[0].options)
        assert scene.advance(np.zeros(7, np.float32)).pictures[0].shape == (32, 32, 3)


def test_a_stage_says_what_is_not_learnt_and_what_becomes_of_a_picture(tmp_path: Path) -> None:
    plain = open_app(str(saved(tmp_path)), "cpu")
    assert (plain.unlearnt, plain.picture) == ((), "")
    known = saved(tmp_path, with_map(nextframe.tiny()), world="doom", level="home", unlearnt=("place",))
    stage = open_app(str(known), "cpu")
    with TestClient(build_app(stage)) as client:
        told = client.get("/api/stage").json()
        assert told["unlearnt"] == ["place"] and "knows one level by heart, 'home'" in told["picture"]
        with client.websocket_connect("/walk?start=0&seed=1") as socket:
            hello = next(m for m in iter(socket.receive_json, None) if m["type"] == "hello")
        assert hello["unlearnt"] == ["place"]


def test_a_dream_trained_on_a_game_of_ones_own_is_walked_sampled_and_examined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Buttons of its own, no poses, a world that nothing opens; the names are what its data say."""

    class Mine(Toy):
        def describe(self) -> dict[str, object]:
            return {"world": "videos", "level": "mine", "split": "test", "seed": 0}

    schema = ActionSchema(("jump", "duck"))
    data = write_clips(Mine(schema=schema, posed=False), 8, tmp_path / "data")
    tiny = replace(nextframe.tiny(), actions=schema.size)
    short = {"data": str(data), "frames": 4, "batch": 2, "steps": 2}
    fit(Run("autoencode.mine", AutoencodeConfig(codec=tiny.codec), **short), tmp_path / "codec")
    fit(Run("nextframe.mine", tiny, codec=str(tmp_path / "codec"), **short), tmp_path / "run")
    stage = open_app(str(tmp_path / "run"), "cpu")
    assert stage.game is None and stage.unlearnt == ("jump", "duck"), "nobody jumps in these clips"
    scene = WorldPair(stage)
    scene.begin(1, stage.starts[0].options)
    assert scene.advance(np.array([1, 0], np.float32)).pictures[0].shape == (32, 32, 3)
    main(["sample", str(tmp_path / "run"), "--frames", "4", "--out", str(tmp_path / "walk.mp4")])
    asked = ["--data", str(data), "--out", str(tmp_path / "report"), "--frames", "4", "--history", "2"]
    main(["evaluate", str(tmp_path / "run"), *asked])
    told = capsys.readouterr().out
    assert "4 frames:" in told and "walks of 'mine'" in told
    assert "not measured: these data have neither yaw nor forward" in told
