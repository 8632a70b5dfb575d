from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image
from rooms import ACTIONS, unpack_frame

from dreamwalk.serve.controls import Controls
from dreamwalk.serve.frames import FrameNote, encode_picture, pack_frame
from dreamwalk.serve.protocol import MAX_MESSAGE, Input, Reset, parse
from dreamwalk.world import ActionSchema


def test_frames_come_back_as_they_went() -> None:
    pictures = [encode_picture(np.full((6, 8, 3), value, np.uint8)) for value in (10, 200)]
    note = FrameNote(
        *(3, 41, "both", 17, 5, 12.5, 0.25, 90.0, tuple(f"choice_{k}" for k in range(40))),
        stages={"denoise": 9.0, "décode": 2.5},
        axes=(8.0, -1.5),
        pose=(0.0, 0.0, 1.0, 120.5, -1.0, 0.0, 0.0, -3.0, 0.0, -1.0, 0.0, 41.25),
    )
    message = pack_frame(note, pictures)
    assert unpack_frame(message) == (note, pictures)
    assert len(message) == 40 + len(b"".join(pictures)) + int.from_bytes(message[28:32], "little")
    for wrong in (b"", message[:20], b"\x01" + message[1:]):
        with pytest.raises(ValueError, match="not a frame message"):
            unpack_frame(wrong)


def test_pictures_stay_close_to_the_frames() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    seen = np.asarray(Image.open(io.BytesIO(encode_picture(frame))), int)
    assert np.abs(seen - frame).mean() < 4


def picture(**settings: Any) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", settings.pop("size", (6, 4)), (250, 0, 0)).save(buffer, settings.get("format", "PNG"))
    return base64.b64encode(buffer.getvalue()).decode()


def test_pictures_are_read_with_or_without_a_data_url() -> None:
    for text in (picture(), "data:image/png;base64," + picture(), picture(format="WEBP")):
        message = parse(json.dumps({"type": "reset", "image": text}))
        assert isinstance(message, Reset) and message.image is not None and message.image.shape == (4, 6, 3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[" * 50_000, "that message is not valid JSON: nested too deeply"),
        ("[1]", "that message must be an object, got a list"),
        ("{}", "^type must be one of input, ack, ping"),
        ('{"type": 3}', "^type must be one of input, ack, ping"),
        ('{"type": "fly"}', "type must be one of input, ack, ping, .*, record, replay, got 'fly'"),
        ('{"type": "input", "moved": {"yaw": NaN}}', "yaw must be a number from -1.* to 1.*, got nan"),
        ('{"type": "input", "moved": {"pitch": -Infinity}}', "pitch must be a number from .*, got -inf"),
        ('{"type": "input", "moved": {"yaw": 1e999}}', "yaw must be a number from -1"),
        ('{"type": "input", "moved": {"yaw": 1' + "0" * 400 + "}}", "yaw must be a number from -1"),
        ('{"type": "input", "turning": {"yaw": "8"}}', "turning.yaw must be a number from .*, got '8'"),
        ('{"type": "input", "turning": {"pitch": true}}', "turning.pitch must be a number from .*, got True"),
        ('{"type": "input", "turning": 8}', "turning must be an object of at most 256, got 8"),
        ('{"type": "input", "held": "forward"}', "held must be a list of at most 256, got 'forward'"),
        ('{"type": "input", "held": [1]}', r"held\[0\] must be a text"),
        ('{"type": "input", "pressed": {"place": -1}}', "place must be a whole number from 0 to 1000"),
        ('{"type": "input", "pressed": ["place"]}', "pressed must be an object"),
        ('{"type": "input", "seq": 1.5}', "seq must be a whole number"),
        ('{"type": "ack"}', "that message lacks 'serial'"),
        ('{"type": "reset", "seed": "7"}', "seed must be a whole number"),
        ('{"type": "reset", "seed": 99999999999}', "seed must be a whole number from 0 to 2147483647"),
        ('{"type": "reset", "image": 5}', "image must be the base64 text"),
        ('{"type": "reset", "image": "###"}', "that picture cannot be read"),
        ('{"type": "reset", "image": "aGVsbG8="}', "that picture cannot be read"),
        ('{"type": "view", "view": "left"}', "view must be one of dream, game, both"),
        ('{"type": "pause"}', "that message lacks 'paused'"),
        ('{"type": "steps", "steps": null}', "steps must be a whole number"),
        ('{"type": "replay", "walk": {}}', "walk lacks 'seed'"),
        ('{"type": "replay", "walk": 3}', "walk must be an object, got 3"),
        ("x" * (MAX_MESSAGE + 1), "too long: at most 4 MB"),
    ],
    ids=range(31),
)
def test_what_makes_no_sense_is_said_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse(text)


def test_pictures_that_are_too_large_are_not_even_decoded() -> None:
    with pytest.raises(ValueError, match="at most 2048 pixels a side"):
        parse(json.dumps({"type": "reset", "image": picture(size=(2049, 1))}))


@settings(max_examples=150, deadline=None)
@given(
    some.recursive(
        some.none() | some.booleans() | some.floats() | some.integers() | some.text(max_size=8),
        lambda inner: (
            some.lists(inner, max_size=4)
            | some.dictionaries(
                some.sampled_from(
                    [
                        "type",
                        "held",
                        "moved",
                        "pressed",
                        "seq",
                        "seed",
                        "start",
                        "image",
                        "walk",
                        "view",
                        "steps",
                    ]
                ),
                inner | some.sampled_from(["input", "reset", "ack", "replay", "steps", "ping", "view"]),
                max_size=6,
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_comes_is_a_message_or_a_value_error(content: Any) -> None:
    try:
        parse(json.dumps(content))
    except ValueError as error:
        assert str(error)


def drained(controls: Controls) -> dict[str, Any]:
    action = ACTIONS.unpack(controls.drain()[0])
    held = [name for name, on in zip(ACTIONS.buttons, action["buttons"], strict=True) if on]
    return {"held": held, "yaw": float(action["axes"][0]), "pitch": float(action["axes"][1])}


def test_held_buttons_are_state_and_taps_are_not_lost() -> None:
    controls = Controls(ACTIONS)
    controls.update(Input(1, held=("forward", "left")))
    assert drained(controls)["held"] == drained(controls)["held"] == ["forward", "left"]
    controls.update(Input(2, held=("forward", "right")))
    controls.update(Input(3))
    assert drained(controls)["held"] == ["forward", "right"]
    assert drained(controls)["held"] == []


def test_movement_adds_up_is_drained_once_and_what_is_beyond_the_limit_waits() -> None:
    controls = Controls(ACTIONS)
    controls.update(Input(1, moved={"yaw": 20.0}))
    controls.update(Input(2, moved={"yaw": 25.0, "pitch": -4.0}))
    assert drained(controls) == {"held": [], "yaw": 30.0, "pitch": -4.0}
    assert drained(controls) == {"held": [], "yaw": 15.0, "pitch": 0.0}
    assert drained(controls)["yaw"] == 0.0
    controls.update(Input(3, moved={"yaw": 1e5}))
    assert [drained(controls)["yaw"] for _ in range(4)] == [30.0, 30.0, 30.0, 0.0]


def test_held_turning_is_a_rate() -> None:
    controls = Controls(ACTIONS)
    controls.update(Input(1, turning={"yaw": 8.0}))
    assert [drained(controls)["yaw"] for _ in range(3)] == [8.0, 8.0, 8.0]
    controls.update(Input(2, turning={"yaw": 500.0}, moved={"yaw": -6.0}))
    assert [drained(controls)["yaw"] for _ in range(2)] == [30.0, 30.0]
    controls.update(Input(3, turning={"yaw": -8.0}))
    controls.update(Input(4))
    assert [drained(controls)["yaw"] for _ in range(2)] == [-8.0, 0.0]


def test_presses_last_one_frame_with_one_between() -> None:
    controls = Controls(ACTIONS)
    controls.update(Input(1, pressed={"place": 2}))
    assert [drained(controls)["held"] for _ in range(4)] == [["place"], [], ["place"], []]
    controls.update(Input(2, pressed={"place": 1000}))
    assert sum("place" in drained(controls)["held"] for _ in range(20)) == 4


def test_the_newest_input_is_named_with_the_frame_that_used_it() -> None:
    controls = Controls(ACTIONS)
    controls.update(Input(5, held=("forward",)))
    assert controls.drain()[1] == 5
    controls.clear()
    assert drained(controls)["held"] == [] and controls.drain()[1] == 5


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (Input(1, held=("jump",)), "no button 'jump': it knows forward"),
        (Input(1, pressed={"place": 1}), "no button 'place': it knows forward"),
        (Input(1, held=("yaw",)), "no button 'yaw': it knows forward"),
        (Input(1, moved={"roll": 1.0}), "no axis 'roll': it knows yaw"),
        (Input(1, turning={"forward": 1.0}), "no axis 'forward': it knows yaw"),
    ],
)
def test_what_a_world_does_not_know_is_refused(message: Input, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"this world has {sentence}"):
        Controls(ActionSchema(("forward",), ("yaw",), (30.0,))).update(message)
