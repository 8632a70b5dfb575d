"""The page in a real browser: what keys, mouse and thumbs do to the picture."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rooms import WIDTH, Room, shift
from tabs import Tab

from dreamwalk.serve import AppConfig, GalleryStart

pytestmark = pytest.mark.browser


def test_the_start_screen_shows_places_and_words(tab: Callable[..., Tab]) -> None:
    page = tab().page
    assert page.title() == "room.test · dreamwalk"
    assert page.locator("h1").inner_text() == "Walk into a dream"
    assert page.locator(".start span").all_inner_texts() == ["Terracotta", "The blue wall", "Amber", "Moss"]
    assert page.locator(".start img").first.evaluate("image => image.naturalWidth") == WIDTH
    page.click('#start-screen [data-do="about"]')
    assert "A room that is cast ray by ray." in page.locator("#about").inner_text()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert "Step left" in page.locator("#help").inner_text()


def test_keys_turn_and_walk_in_the_right_direction(tab: Callable[..., Tab]) -> None:
    walk = tab().begin()
    walk.stand_still()
    before = walk.picture()
    right = walk.step("ArrowRight")
    assert -13 <= shift(before, right) <= -6, "turning right moves the picture left"
    assert walk.look("dreamwalk.view.newest.axes") == [8, 0]
    assert 6 <= shift(right, walk.step("ArrowLeft")) <= 13
    ahead = walk.step("KeyW")
    assert walk.look("document.querySelector('[data-key=forward]').classList.contains('on')")
    assert np.abs(ahead - before).mean() > 1
    back = walk.step("ArrowDown")
    assert np.abs(back - before).mean() < np.abs(ahead - before).mean()
    walk.step("KeyD")
    assert walk.look("dreamwalk.view.newest.held") == ["right"]
    top = walk.picture()[:6, :10].mean()
    placed = walk.step("e")
    assert placed[:6, :10].mean() > top + 20


def test_the_mouse_looks_around_and_places(tab: Callable[..., Tab]) -> None:
    walk = tab().begin()
    walk.stand_still()
    before = walk.picture()
    box = walk.page.locator("#first").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    walk.page.mouse.move(x, y)
    walk.page.mouse.down()
    walk.until("document.pointerLockElement !== null || dreamwalk.link.rtt > 0")
    walk.page.mouse.move(x + 60, y, steps=4)
    walk.page.mouse.up()
    time.sleep(0.1)
    turned = walk.step()
    assert shift(before, turned) < -4
    if walk.look("document.pointerLockElement !== null"):
        walk.page.mouse.click(x + 60, y)
        time.sleep(0.1)
        walk.step()
        assert walk.look("dreamwalk.view.newest.held") == ["place"]


def test_dream_game_and_both(tab: Callable[..., Tab]) -> None:
    walk = tab().begin()
    walk.page.keyboard.down("ArrowRight")
    walk.until("dreamwalk.view.newest.frame > 6")
    walk.page.keyboard.up("ArrowRight")
    walk.stand_still()
    dream = walk.picture()
    walk.page.keyboard.press("g")
    walk.until("document.body.dataset.view === 'game' && dreamwalk.view.newest.view === 'game'")
    walk.settle()
    game = walk.picture()
    edges = [np.diff(picture, axis=1) for picture in (dream, game)]
    assert shift(*edges) == 0, "the game stands where the dream stood"
    assert walk.page.locator("#views [aria-pressed=true]").inner_text() == "Real game"
    walk.page.keyboard.press("g")
    walk.until("document.body.dataset.view === 'dream' && dreamwalk.view.newest.view === 'dream'")
    walk.settle()
    assert np.abs(walk.picture() - game).mean() < 2, "the dream goes on from the game's picture"
    walk.page.keyboard.press("b")
    walk.until("document.body.dataset.view === 'both' && dreamwalk.view.newest.bitmaps.length === 2")
    assert walk.page.locator("#second").is_visible()
    walk.settle()
    assert np.abs(walk.picture(0) - walk.picture(1)).mean() < 2


def test_reset_seed_steps_and_the_numbers(tab: Callable[..., Tab]) -> None:
    walk = tab(viewport={"width": 1280, "height": 800}).begin(start=2, seed=5)
    assert walk.look("[dreamwalk.app.status.seed, dreamwalk.app.status.start]") == [5, 2]
    walk.page.keyboard.press("]")
    walk.until("dreamwalk.app.status.steps === 5")
    walk.page.keyboard.press("[")
    walk.page.keyboard.press("[")
    walk.until("dreamwalk.app.status.steps === 3")
    walk.until("dreamwalk.view.newest.frame > 10")
    words = walk.page.locator("#stats").inner_text()
    for name in (
        "model fps",
        "page fps",
        "key to pixel",
        "round trip",
        "seed",
        "denoise",
        "commit",
        "decode",
        "jpeg",
    ):
        assert name in words
    walk.page.keyboard.press("r")
    walk.until("dreamwalk.view.newest.frame < 8")
    walk.page.keyboard.press(",")
    walk.type("#p-seed", "77")
    walk.page.keyboard.press("Enter")
    walk.until("dreamwalk.app.status.seed === 77")
    walk.page.locator(".places button").nth(3).click()
    walk.until("dreamwalk.app.status.start === 3")
    walk.page.click("#p-pace")
    walk.until("dreamwalk.app.status.unlocked && dreamwalk.hud.numbers.page > 25")
    walk.page.keyboard.press("Escape")
    walk.until("!dreamwalk.panel.isOpen")
    walk.page.keyboard.press("w")
    walk.until("dreamwalk.hud.numbers.latency > 0")
    walk.page.keyboard.press("h")
    assert walk.look("getComputedStyle(document.querySelector('.bar')).pointerEvents") == "none"


def test_a_walk_is_recorded_and_replayed(tab: Callable[..., Tab], tmp_path: Path) -> None:
    walk = tab().begin(start=1, seed=9)
    walk.page.keyboard.press("v")
    walk.until("dreamwalk.app.status.recording")
    walk.page.keyboard.down("w")
    walk.until("dreamwalk.view.newest.frame > 12")
    walk.page.keyboard.up("w")
    walk.page.keyboard.press("v")
    walk.page.wait_for_selector(".film", state="attached")
    walk.page.keyboard.press(",")
    saved = {}
    for kind in ("mp4", "walk"):
        with walk.page.expect_download() as download:
            walk.page.click(f".film a:has-text('{kind}')")
        saved[kind] = tmp_path / download.value.suggested_filename
        download.value.save_as(saved[kind])
    assert re.fullmatch(r"room\.test-seed9-.*\.mp4", saved["mp4"].name) and saved["mp4"].stat().st_size > 1000
    count = len(json.loads(saved["walk"].read_text())["actions"])
    walk.page.set_input_files("#pick-walk", saved["walk"])
    walk.until(f"dreamwalk.app.status.replay === {count} && dreamwalk.view.newest.replaying")
    assert walk.page.locator("#progress").is_visible()
    walk.until("dreamwalk.app.status.replay === null")
    longer = json.loads(saved["walk"].read_text()) | {"steps": 20}
    (tmp_path / "longer.json").write_text(json.dumps(longer))
    walk.page.set_input_files("#pick-walk", tmp_path / "longer.json")
    walk.until("dreamwalk.app.status.replay !== null && dreamwalk.app.status.steps === 20")
    assert walk.look("document.querySelector('#p-steps').value") == "20"
    (tmp_path / "no.json").write_text("{]")
    walk.page.set_input_files("#pick-walk", tmp_path / "no.json")
    walk.page.wait_for_selector(".toast.error:has-text('not valid JSON')")


def test_a_dream_from_a_picture(tab: Callable[..., Tab], tmp_path: Path) -> None:
    Image.new("RGB", (400, 300), (255, 255, 255)).save(tmp_path / "white.png")
    page = tab()
    page.page.set_input_files("#pick-picture", tmp_path / "white.png")
    assert page.page.locator(".toast").inner_text() == "It melts within seconds."
    page.until(
        "dreamwalk.app.hello && dreamwalk.app.status.start === null && dreamwalk.app.status.state === 'ready'"
    )
    page.until("dreamwalk.view.newest && dreamwalk.view.newest.frame > 2")
    assert page.picture().mean() > 240
    Image.new("RGB", (400, 100), (255, 255, 255)).save(tmp_path / "wide.png")
    page.page.set_input_files("#pick-picture", tmp_path / "wide.png")
    third, end = len(page.picture()) // 4, time.monotonic() + 8
    while page.picture()[:third].mean() > 15 and time.monotonic() < end:
        time.sleep(0.05)  # until the second picture is there
    shown = page.picture().astype(float)
    assert shown[:third].mean() < 15 and shown[-third:].mean() < 15, "the whole picture, between bars"
    assert shown[len(shown) // 2].mean() > 240


def test_two_browsers_walk_on_their_own_and_a_closed_tab_is_free(tab: Callable[..., Tab]) -> None:
    first, second = tab().begin(), tab().begin()
    about = "fetch('api/stage').then(answer => answer.json()).then(stage => stage.sessions)"
    assert first.look(about) == 2
    first.stand_still()
    second.stand_still()
    alike = first.picture()
    assert np.abs(second.step("ArrowRight") - alike).mean() > 1
    assert np.abs(first.picture() - alike).mean() == 0
    second.page.close()
    first.until(f"{about}.then(count => count === 1)")
    first.page.go_back()
    first.until(f"{about}.then(count => count === 0)")
    assert first.look("document.body.dataset.screen") == "start"


@pytest.mark.parametrize("size", [(390, 844), (844, 390)], ids=["upright", "sideways"])
def test_thumbs_walk_and_look(tab: Callable[..., Tab], size: tuple[int, int]) -> None:
    width, height = size
    walk = tab(viewport={"width": width, "height": height}, has_touch=True, is_mobile=True)
    assert walk.look("document.documentElement.scrollWidth") <= width
    walk.page.locator(".start").first.tap()
    walk.until("dreamwalk.view.newest && dreamwalk.app.status.state === 'ready'")
    assert walk.page.locator("#stick").is_visible() and walk.page.locator("#pads button").is_visible()
    walk.page.locator('.tools [data-do="pause"]').tap()
    walk.until("dreamwalk.app.status.paused")
    walk.settle()
    before = walk.picture()
    fingers = walk.context.new_cdp_session(walk.page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        where = [{"x": x, "y": y, "id": k} for k, (x, y) in enumerate(points)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": where})

    left, right = (width * 0.25, height * 0.75), (width * 0.75, height * 0.5)
    touch("touchStart", left)
    touch("touchMove", (left[0], left[1] - 50))
    time.sleep(0.1)
    walk.step()
    assert walk.look("dreamwalk.view.newest.held") == ["forward"]
    touch("touchEnd")
    time.sleep(0.1)
    walk.step()
    assert walk.look("dreamwalk.view.newest.held") == []
    touch("touchStart", right)
    touch("touchMove", (right[0] + 30, right[1]))
    touch("touchEnd")
    time.sleep(0.1)
    assert shift(before, walk.step()) < -5
    walk.page.locator("#pads button").tap()
    time.sleep(0.1)
    walk.step()
    assert walk.look("dreamwalk.view.newest.held") == ["place"]


def test_waiting_in_line_and_waking_up(
    tab: Callable[..., Tab], serve_config: Callable[..., str], starts: list[GalleryStart]
) -> None:
    small = serve_config(AppConfig("doom.test", None, lambda: Room(fps=20), starts), max_sessions=1)
    first = tab(address=small)
    assert first.page.locator("h1").inner_text() == "Walk the real game"
    assert not first.page.locator('#start-screen [data-do="picture"]:visible').count()
    first.begin()
    assert first.page.locator("#views button").count() == 0
    second = tab(address=small)
    second.page.click("#enter")
    second.page.wait_for_selector("#veil-text:has-text('Everyone is walking')")
    first.look("dreamwalk.link.socket.close()")
    second.until("dreamwalk.view.newest && dreamwalk.app.status.state === 'ready'")
    first.page.wait_for_selector("#veil-text:has-text('You woke up')")
    first.page.click("#veil-button")
    first.page.wait_for_selector("#veil-text:has-text('Everyone is walking')")
