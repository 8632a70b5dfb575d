"""The points that a dream keeps: what a page is sent of them, and how it shows them in space."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from rooms import Visitor
from tabs import Tab
from test_accessible import SIZES as SCREENS
from test_accessible import faults
from test_keys import reached
from test_layout import FINGERS, SIZES, covering, outside
from test_level_seeds import Remembering, Stage
from test_memory_strip import Banked

from dreamwalk.serve import CloudSample, GalleryStart
from dreamwalk.serve.cloud_stream import AT_ONCE, HEADER, MOST, REACH, UNIT, CloudStream
from dreamwalk.world import World

Visit = Callable[..., Visitor]


def sample(position: np.ndarray, *, eyes: tuple[float, ...] = (0, 0, 41), every: int = 1) -> CloudSample:
    """Points in colours of their number, as fine as a unit."""
    count = len(position)
    colours = (np.arange(count)[:, None] * [1, 3, 7] % 256).astype(np.uint8)
    whole = CloudSample(position.astype(np.float32), colours, np.ones(count, np.float32), np.array(eyes), 0.5)
    return whole.thinned(every)


class Shown:
    """What a page has of a cloud after the messages that it was sent."""

    def __init__(self) -> None:
        self.place, self.paint = np.zeros((0, 3)), np.zeros((0, 4), np.uint8)

    def take(self, message: bytes) -> int:
        """Slots that the message tells of."""
        version, forget, thirds, count, slots, unit, *middle, focal = HEADER.unpack_from(message)
        assert version == 3 and focal == 0.5 and len(message) == HEADER.size + 16 * count
        step = 0 if forget else 3**thirds
        before = (part[::step] if step else part[:0] for part in (self.place, self.paint))
        place, paint = np.zeros((slots, 3)), np.zeros((slots, 4), np.uint8)
        for part, old in zip((place, paint), before, strict=True):
            part[: len(old)] = old
        numbers = np.frombuffer(message, "<u4", count, HEADER.size)
        at = HEADER.size + 4 * count
        steps = np.frombuffer(message, "<i2", 4 * count, at).reshape(-1, 4)[:, :3]
        place[numbers] = steps * unit + np.array(middle)
        paint[numbers] = np.frombuffer(message, np.uint8, 4 * count, at + 8 * count).reshape(-1, 4)
        self.place, self.paint = place, paint
        return count

    def assert_shows(self, cloud: CloudSample) -> None:
        there = np.isfinite(cloud.position).all(1)
        assert np.array_equal(self.paint[:, 3] > 0, there)
        assert np.abs(self.place - cloud.position)[there].max(initial=0) <= UNIT / 2
        assert np.array_equal(self.paint[there, :3], cloud.colours[there])


def test_a_page_has_what_the_dream_keeps_and_no_more() -> None:
    random, stream, page = np.random.default_rng(0), CloudStream(), Shown()
    position = np.full((512, 3), np.inf)
    for turn in range(40):
        slots = random.integers(0, len(position), 60)
        position[slots] = random.uniform(-900, 900, (60, 3))
        position[random.integers(0, len(position), 40)] = np.inf
        if turn % 8 == 7:
            position = np.concatenate([position, np.full((64, 3), np.inf)])
        message = stream.changes(sample(position))
        assert message and page.take(message) <= 100
        page.assert_shows(sample(position))
    assert stream.changes(sample(position)) is None, "nothing has changed"


def test_sky_is_left_out_and_whoever_walks_far_has_another_middle() -> None:
    stream, page = CloudStream(), Shown()
    position = np.array([[0, 0, 0], [REACH + 1, 0, 0], [20_000, 0, 5]])
    page.take(stream.changes(sample(position)) or b"")
    assert (page.paint[:, 3] > 0).tolist() == [True, False, False]
    page.take(stream.changes(sample(position, eyes=(3000, 0, 41))) or b"")
    assert (page.paint[:, 3] > 0).tolist() == [True, True, False]


def test_a_large_cloud_comes_bit_by_bit_and_what_is_gone_goes_first() -> None:
    stream, page = CloudStream(), Shown()
    position = np.random.default_rng(0).uniform(-900, 900, (2 * AT_ONCE + 5, 3))
    told = []
    while message := stream.changes(sample(position)):
        told.append(page.take(message))
    assert told == [AT_ONCE, AT_ONCE, 5]
    page.assert_shows(sample(position))
    position[:AT_ONCE] += 1
    position[-3:] = np.inf
    assert page.take(stream.changes(sample(position)) or b"") == AT_ONCE
    assert (page.paint[:, 3] > 0).sum() == len(position) - 3


def test_of_more_points_than_a_page_draws_it_keeps_a_third() -> None:
    stream, page, random = CloudStream(), Shown(), np.random.default_rng(0)
    position = random.uniform(-900, 900, (MOST, 3))
    while message := stream.changes(sample(position, every=stream.every)):
        page.take(message)
    position = np.concatenate([position, random.uniform(-900, 900, (64, 3))])
    assert page.take(stream.changes(sample(position, every=stream.every)) or b"") == 21
    assert stream.every == 3 and len(page.place) <= MOST // 3 + 64
    page.assert_shows(sample(position, every=3))
    other = position[: MOST // 9]
    assert stream.changes(sample(other, every=stream.every)) is None and stream.every == 1
    page.take(stream.changes(sample(other)) or b"")
    page.assert_shows(sample(other))


class Pointed(Banked):
    """A page of a dream that keeps twenty points more with every frame, of which the first can be erased."""

    samples = erased = 0

    def cloud(self, world: World, every: int) -> CloudSample | None:
        self.samples += 1
        assert isinstance(world, Remembering)
        angle = np.arange(20.0 * (world.count + 1))
        position = np.stack([9 * np.cos(angle), 9 * np.sin(angle), angle % 7], 1)
        position[: self.erased] = np.inf
        return sample(position, eyes=tuple(world.pose[:3, 3]), every=every)


@pytest.fixture
def stage(starts: list[GalleryStart]) -> Pointed:
    return Pointed(starts)


def test_points_come_to_who_looks_and_not_with_every_frame(stage: Pointed, visit: Visit) -> None:
    visitor = visit(stage.config, query="?seed=5")
    assert visitor.client.get("/api/stage").json()["cloud"] is True
    assert visitor.until("hello")["cloud"] is True
    visitor.frame(6)
    assert stage.samples == 0, "nobody looks at them, so nothing is made"
    visitor.send("cloud", shown=True)
    page = Shown()
    assert page.take(visitor.until("cloud")) >= 140
    told = [page.take(message) for message in visitor.seldom("cloud", lambda: stage.samples)]
    assert max(told) < len(page.place), "what it has is not sent again"
    stage.erased = 100
    visitor.until("cloud")
    page.take(visitor.until("cloud"))
    visitor.look_away("cloud", lambda: stage.samples)
    visitor.asleep()
    visitor.send("cloud", shown=True)
    again = Shown()
    again.take(visitor.until("cloud"))
    assert len(again.place) == 20 and not again.paint.any(), "all of it, and all of that is erased"


def test_dreams_without_points_have_no_cloud(starts: list[GalleryStart], visit: Visit) -> None:
    visitor = visit(Stage(starts).config, query="?seed=5")
    assert visitor.until("hello")["cloud"] is False
    visitor.send("cloud", shown=True)
    visitor.frame(4)
    assert "cloud" not in [kind for kind, _ in visitor.heard]
    visitor.socket.send_text(json.dumps({"type": "cloud", "shown": 1}))
    assert visitor.until("error")["message"].startswith("shown must be")


# ---- in a browser


@pytest.fixture
def page(
    stage: Pointed, serve_config: Callable[..., str], tab: Callable[..., Tab]
) -> Iterator[Callable[..., Tab]]:
    home = serve_config(stage.config)

    def opened(**settings: Any) -> Tab:
        walk = tab(address=home + "?seed=3", **settings)
        walk.page.click("#enter")
        walk.until("dreamwalk.view.newest?.frame > 3")
        assert not walk.page.locator("#cloud").is_visible()
        walk.page.keyboard.press("c")
        walk.until("dreamwalk.cloud.space?.count > 60 && dreamwalk.cloud.space.stood")
        return walk

    yield opened


SPACE = "dreamwalk.cloud.space"
EYES = f"{SPACE}.camera.position.toArray()"


@pytest.mark.browser
def test_the_points_grow_vanish_and_are_turned_by_mouse_and_keys(
    page: Callable[..., Tab], stage: Pointed
) -> None:
    walk = page(viewport={"width": 1280, "height": 800})
    before = walk.look(f"{SPACE}.count")
    walk.until(f"{SPACE}.count > {before}")
    assert walk.page.locator("#cloud figcaption").inner_text().endswith("points")
    assert walk.look(f"{SPACE}.paths.now.geometry.attributes.position.count") == 16, "the walker's view"
    stage.erased = 10**6
    walk.until(f"{SPACE}.count < 41")
    stage.erased = 0
    walk.until(f"{SPACE}.count > {before}")
    walk.page.keyboard.press("p")
    walk.until("dreamwalk.app.status.paused")
    walk.settle()
    yaw, eyes = stage.dreams[-1].yaw, walk.look(EYES)
    box = walk.page.locator("#cloud").bounding_box()
    walk.page.mouse.move(box["x"] + 100, box["y"] + 100)
    walk.page.mouse.down()
    walk.page.mouse.move(box["x"] + 180, box["y"] + 120, steps=4)
    walk.page.mouse.up()
    turned = walk.look(EYES)
    assert turned != eyes and walk.look("document.pointerLockElement === null")
    for _ in range(40):
        walk.page.keyboard.press("Tab")
        if walk.look("document.activeElement.closest('#cloud') !== null"):
            break
    for key, part in (("ArrowLeft", "x"), ("ArrowUp", "y"), ("+", "z"), ("-", "z")):
        place = walk.look(f"{SPACE}.camera.position.{part}")
        walk.page.keyboard.press(key)
        assert walk.look(f"{SPACE}.camera.position.{part}") != place
    walk.page.keyboard.press("p")
    walk.page.keyboard.down("w")
    walk.until("dreamwalk.view.newest.held.includes('forward')")
    walk.page.keyboard.up("w")
    assert stage.dreams[-1].yaw == yaw, "the arrows turned the points"
    walk.page.keyboard.press("c")
    walk.until("document.querySelector('#cloud').hidden")
    walk.rests(lambda: stage.samples)
    walk.page.click('.tools [data-do="cloud"]')
    walk.until(f"!document.querySelector('#cloud').hidden && {SPACE}.count > 60")
    walk.page.keyboard.press("h")
    walk.until("document.querySelector('#cloud').hidden")
    walk.page.reload()
    walk.page.wait_for_selector("#enter:enabled")
    walk.page.click("#enter")
    walk.until(f"{SPACE}?.count > 20")


@pytest.mark.browser
def test_the_walker_is_followed_and_another_walk_begins_anew(page: Callable[..., Tab]) -> None:
    walk = page()
    walk.page.keyboard.press("r")
    walk.until("dreamwalk.view.newest.frame < 4")
    walk.until(f"{SPACE}.count < 20 * (dreamwalk.view.newest.frame + 2)")
    moved = "[0, 0, 1, 50, -1, 0, 0, 70, 0, -1, 0, 9]"
    walk.stand_still()
    before = walk.look(f"{EYES}.map((at, k) => at - {SPACE}.controls.target.toArray()[k])")
    walk.look(f"dreamwalk.cloud.walk({moved})")
    walk.until(f"{SPACE}.controls.target.distanceTo({{x: 50, y: 9, z: -70}}) < 1e-3")
    after = walk.look(f"{EYES}.map((at, k) => at - {SPACE}.controls.target.toArray()[k])")
    assert np.allclose(before, after, atol=1e-3), "it is seen from the same side"


@pytest.mark.browser
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_points_stand_beside_the_picture(page: Callable[..., Tab], size: tuple[int, int]) -> None:
    walk = page(viewport={"width": size[0], "height": size[1]}, **(FINGERS if min(size) < 500 else {}))
    for view in ("dream", "both", "game"):
        walk.look(f"dreamwalk.link.send({{type: 'view', view: '{view}'}})")
        walk.until(f"document.body.dataset.view === '{view}' && dreamwalk.view.newest.view === '{view}'")
        walk.until("document.querySelectorAll('#stats dd').length > 3")
        time.sleep(0.2)  # the browser lays out once more
        assert (view, outside(walk)) == (view, []) and (
            size == (844, 390) or (view, covering(walk)) == (view, [])
        )
        boxes = [one.bounding_box() for one in walk.page.locator(".frame").all() if one.is_visible()]
        assert len(boxes) == {"dream": 2, "both": 3, "game": 1}[view]
        for k, a in enumerate(boxes):
            for b in boxes[k + 1 :]:
                assert a["x"] + a["width"] <= b["x"] or a["y"] + a["height"] <= b["y"]
        if view != "game":
            first, drawn = boxes[0], walk.page.locator("#map").bounding_box()
            assert first["x"] <= drawn["x"] and drawn["x"] + drawn["width"] <= first["x"] + first["width"]


@pytest.mark.browser
@pytest.mark.parametrize("size", list(SCREENS))
def test_the_points_have_no_serious_faults(page: Callable[..., Tab], size: str) -> None:
    walk = page(bypass_csp=True, **SCREENS[size])
    assert faults(walk, "points") == []
    if size == "desk":
        assert reached(walk) == []


@pytest.mark.browser
def test_without_a_space_the_walk_goes_on(page: Callable[..., Tab], tab: Callable[..., Tab]) -> None:
    walk = page()
    walk.page.keyboard.press("c")
    walk.context.add_init_script(
        "HTMLCanvasElement.prototype.getContext = (get => function (kind, ...rest) {"
        " return kind.startsWith('webgl') ? null : get.call(this, kind, ...rest); })"
        "(HTMLCanvasElement.prototype.getContext)"
    )
    walk.page.reload()
    walk.page.wait_for_selector("#enter:enabled")
    walk.page.click("#enter")
    walk.until("dreamwalk.view.newest?.frame > 3")
    walk.page.keyboard.press("c")
    walk.page.wait_for_selector(".toast.error:has-text('no points in space')")
    assert not walk.page.locator("#cloud").is_visible()
    frame = walk.look("dreamwalk.view.newest.frame")
    walk.until(f"dreamwalk.view.newest.frame > {frame}")
    walk.complaints.clear()
