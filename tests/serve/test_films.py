"""Recording a walk and replaying it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace

import av
import pytest
from rooms import Room, Visitor, some_picture

from dreamwalk.data.walks import parse_walk
from dreamwalk.serve import AppConfig

Make = Callable[..., AppConfig]
Visit = Callable[..., Visitor]


def walked(visitor: Visitor, count: int) -> list[list[bytes]]:
    shown = []
    for k in range(count):
        visitor.send(
            "input",
            seq=k,
            held=["forward"] if k % 3 else ["left"],
            moved={"yaw": 3.7 * k, "pitch": -1.3},
            pressed={"place": k % 2},
        )
        shown.append(visitor.step()[1])
    return shown


@pytest.mark.parametrize("start", ["gallery", "picture"])
def test_a_recorded_walk_replays_to_the_same_frames(make_config: Make, visit: Visit, start: str) -> None:
    config = make_config()
    visitor = visit(config)
    visitor.asleep()
    visitor.send("steps", steps=2)
    visitor.send("reset", seed=11, **({"start": 2} if start == "gallery" else {"image": some_picture()}))
    shown = [visitor.frame(0)[1], *walked(visitor, 3)]
    visitor.send("record", on=True)
    visitor.until("status", recording=True)
    shown += walked(visitor, 9)
    visitor.send("record", on=False)
    film = visitor.until("recorded")
    assert (film["exact"], film["steps"], film["frames"]) == (True, 12, 10)

    content = visitor.client.get("/" + film["walk"]).json()
    names = "format system seed start steps fps buttons axes actions"
    assert list(content) == names.split()
    assert (content["format"], content["system"], content["seed"]) == ("dreamwalk.walk/1", "room.test", 11)
    assert (content["steps"], content["fps"], len(content["actions"])) == (2, 30.0, 12)
    assert parse_walk(json.dumps(content)).actions.shape == (12, 7)

    other = visit(config)
    other.send("pace", unlocked=True)
    other.until("status", unlocked=True)
    other.send("replay", walk=content)
    replayed = [other.frame(0)[1], *(other.frame()[1] for _ in range(12))]
    assert replayed == shown
    assert other.until("status", replay=None)["message"] == "The walk is over. From here on it is yours."


@pytest.mark.parametrize(
    ("view", "name"), [("dream", "room.test"), ("game", "room: real"), ("both", "room.test")]
)
def test_a_recording_bears_the_name_of_what_it_shows(
    make_config: Make, visit: Visit, view: str, name: str
) -> None:
    visitor = visit(replace(make_config(), game_title="room: real"))
    visitor.asleep()
    visitor.send("view", view=view)
    visitor.until("status", view=view)
    visitor.send("record", on=True)
    visitor.step(3)
    visitor.send("record", on=False)
    film = visitor.until("recorded")
    assert film["mp4"].startswith(f"recordings/{re.sub('[^a-z.]+', '-', name)}-seed")
    assert visitor.client.get("/" + film["walk"]).json()["system"] == name


def test_films_are_mp4_at_the_worlds_pace(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config())
    visitor.asleep()
    visitor.send("record", on=True)
    visitor.step(3)
    visitor.send("view", view="both")
    visitor.frame()
    visitor.step(3)
    visitor.send("record", on=False)
    film = visitor.until("recorded")
    answer = visitor.client.get("/" + film["mp4"])
    assert (
        answer.headers["content-type"] == "video/mp4"
        and "attachment" in answer.headers["content-disposition"]
    )
    with av.open(io.BytesIO(answer.content)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 640, 480)
        assert float(stream.average_rate or 0) == 30.0
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == film["frames"] == 7
    assert visitor.client.get("/recordings/none.mp4").status_code == 404
    assert visitor.client.get("/recordings/..%2f..%2fsecrets.json").status_code == 404


def test_a_change_of_steps_on_the_way_is_confessed(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config())
    visitor.asleep()
    visitor.step(2)
    visitor.send("steps", steps=1)
    visitor.send("record", on=True)
    visitor.step(2)
    visitor.send("record", on=False)
    assert visitor.until("recorded")["exact"] is False


def test_taking_over_a_replay(make_config: Make, visit: Visit) -> None:
    visitor = visit(make_config())
    visitor.until("hello")
    content = {
        "format": "dreamwalk.walk/1",
        "system": "x",
        "seed": 1,
        "start": {"start": 1},
        "steps": 20,
        "fps": 30,
        "buttons": list(Room.actions.buttons),
        "axes": list(Room.actions.axes),
        "actions": [[1, 0, 0, 0, 0, 0.1, 0]] * 500,
    }
    visitor.send("replay", walk=content)
    status = visitor.until("status", replay=500)
    assert (status["start"], status["steps"]) == (1, 20)
    assert visitor.frame(4)[0].flags & 2
    visitor.send("replay", walk=None)
    visitor.until("status", replay=None)
    assert not visitor.frame()[0].flags & 2
    visitor.send("replay", walk=content | {"buttons": ["fly", "back", "left", "right", "place"]})
    assert "replay it where it was recorded (x)" in visitor.until("error")["message"]
