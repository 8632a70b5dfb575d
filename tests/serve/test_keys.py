"""Every button and axis of any world is reached from keyboard, phone and game pad, and all else by keys."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from odd import ODD, Odd
from rooms import ACTIONS as ACTIONS_OF_ROOMS
from rooms import Imagined, Room
from tabs import Tab
from test_clip_requests import Maker, config_of, wait_for

from dreamwalk.serve import AppConfig, GalleryStart
from dreamwalk.serve.app import PAGE
from dreamwalk.world import ActionSchema

pytestmark = pytest.mark.browser
ACTIONS = [f"button:{name}" for name in ODD.buttons] + [f"axis:{a}{way}" for a in ODD.axes for way in "-+"]
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
REACHABLE = """all => (window.rest = all.filter(one =>
  one.checkVisibility({visibilityProperty: true}) && !one.disabled && !one.closest("[inert]")
  && one.type !== "file" && (!document.querySelector("dialog[open]") || one.closest("dialog")))).length"""
LEFT = """() => {
  window.rest = window.rest.filter(one => one !== document.activeElement);
  return window.rest.map(one => one.outerHTML);
}"""
UNSEEN = """all => all.filter(button => {
  button.scrollIntoView({block: "center"});
  const {x, y, width, height} = button.getBoundingClientRect();
  const there = document.elementFromPoint(x + width / 2, y + height / 2);
  return width < 20 || height < 16 || !button.contains(there);
}).map(button => button.outerHTML)"""


class Home:
    """A stage of one odd dream without a game, and the worlds that it has opened."""

    def __init__(self, serve_config: Callable[..., str], starts: list[GalleryStart]) -> None:
        self.worlds: list[Odd] = []
        self.address = serve_config(AppConfig("odd.game", dream=self._open, starts=starts, actions=ODD))

    def _open(self) -> Odd:
        self.worlds.append(Odd())
        return self.worlds[-1]

    def arrives(self, name: str, value: float = 1.0, count: int = 1) -> None:
        """Wait until the newest world was told this in so many steps, and nothing beside it."""
        end = time.monotonic() + 8
        while True:
            seen = [told for told in list(self.worlds[-1].seen) if name in told]
            if len(seen) >= count:
                break
            assert time.monotonic() < end, f"{name} never reached the world"
            time.sleep(0.01)
        assert seen[0] == {name: pytest.approx(value)}

    def rests(self) -> None:
        """Wait until the newest world is told nothing any more."""
        end = time.monotonic() + 8
        while any(self.worlds[-1].seen[-1:]):
            assert time.monotonic() < end, "what was let go is still told"
            time.sleep(0.05)

    def forget(self) -> None:
        time.sleep(0.1)
        self.worlds[-1].seen.clear()


@pytest.fixture(scope="module")
def home(serve_config: Callable[..., str], starts: list[GalleryStart]) -> Home:
    return Home(serve_config, starts)


def told(action: str) -> tuple[str, float]:
    """Name and value that reach a world when an action is done."""
    kind, _, name = action.partition(":")
    if kind == "button":
        return name, 1.0
    limit = ODD.limits[ODD.axes.index(name[:-1])]
    return name[:-1], limit if name.endswith("+") else -limit


def listed(page: Tab) -> dict[str, list[str]]:
    """The list of keys: the labels of the keys of every action."""
    page.page.keyboard.press("?")
    page.page.locator("#help").wait_for()
    lines = page.page.locator("#help [data-action]").all()
    found = {str(one.get_attribute("data-action")): one.locator(".cap").all_inner_texts() for one in lines}
    page.page.keyboard.press("Escape")
    page.until("!document.querySelector('dialog[open]')")
    return found


def reached(page: Tab, most: int = 120) -> list[str]:
    """Press Tab until the focus has been everywhere; what can be seen and was not reached."""
    page.look("document.activeElement.blur()")
    count = page.page.locator("button, input, textarea, a[href], summary").evaluate_all(REACHABLE)
    assert count > 5
    for _ in range(most):
        page.page.keyboard.press("Tab")
        left = page.look(LEFT)
        if not left:
            break
    return left


def test_every_button_and_axis_has_a_key_in_the_list_that_arrives(
    tab: Callable[..., Tab], home: Home
) -> None:
    walk = tab(address=home.address).begin()
    lines = listed(walk)
    assert set(ACTIONS) <= set(lines)
    keys = [key for caps in lines.values() for key in caps]
    assert len(keys) == len(set(keys)) and all(lines.values()), (
        "each action has a key, and no two have the same"
    )
    assert lines["button:choice_3"] == ["3"] and lines["axis:steering-"] == ["←"]
    for action in ACTIONS:
        code = walk.look(f"dreamwalk.bindings.on({json.dumps(action)}, 'keys')[0]")
        walk.page.keyboard.down(code)
        home.arrives(*told(action), count=2)
        walk.page.keyboard.up(code)
        home.forget()
    walk.page.keyboard.press("Digit2")
    home.arrives("choice_2")
    home.forget()
    assert not any(home.worlds[-1].seen), "what is let go is let go"


def test_taps_that_are_shorter_than_a_message_arrive(tab: Callable[..., Tab], home: Home) -> None:
    walk = tab(address=home.address).begin()
    home.forget()
    for _ in range(3):
        walk.page.keyboard.press("Digit1")
        walk.page.keyboard.press("Digit2")
    home.arrives("choice_1")
    home.rests()
    assert any("choice_2" in seen for seen in home.worlds[-1].seen)


def test_a_key_is_changed_and_kept(tab: Callable[..., Tab], home: Home) -> None:
    walk = tab(address=home.address).begin()
    before = listed(walk)
    walk.page.keyboard.press("?")
    for _ in range(60):
        walk.page.keyboard.press("Tab")
        if walk.look("document.activeElement.closest('[data-action]')?.dataset.action") == "button:rightfire":
            break
    walk.page.keyboard.press("Enter")
    assert "press a key" in walk.page.locator("#help").inner_text()
    walk.page.keyboard.press("Escape")
    assert walk.page.locator("#help").is_visible(), "Escape ends the waiting, not the list"
    walk.page.keyboard.press("Enter")
    walk.page.keyboard.press("Digit0")
    walk.page.keyboard.press("Escape")
    walk.until("!document.querySelector('dialog[open]')")
    after = listed(walk)
    assert after["button:rightfire"] == ["0"] and before["button:choice_0"] == ["0"]
    assert after["button:choice_0"] == before["button:rightfire"], "whoever had it gets the old one"
    home.forget()
    walk.page.keyboard.press("0")
    home.arrives("rightfire")
    walk.page.reload()
    walk.page.wait_for_selector("#enter:enabled")
    walk.begin()
    assert listed(walk) == after
    home.forget()
    walk.page.keyboard.press("0")
    home.arrives("rightfire")
    walk.page.keyboard.press("?")
    walk.page.click("text=Back to the usual keys")
    walk.page.keyboard.press("Escape")
    assert listed(walk) == before


def test_what_the_page_keeps_may_be_anything(tab: Callable[..., Tab], home: Home) -> None:
    walk = tab(address=home.address)
    for kept in ("{", "[1]", '{"button:fire": "KeyX", "button:noop": [3], "button:drop": ["KeyX", "KeyX"]}'):
        walk.look(f"localStorage.setItem('dreamwalk.keys', {json.dumps(kept)})")
        walk.page.reload()
        walk.page.wait_for_selector("#enter:enabled")
        lines = listed(walk)
        assert set(ACTIONS) <= set(lines) and all(lines.values())
    assert lines["button:drop"] == ["X"]


def test_what_has_no_game_offers_none(tab: Callable[..., Tab], home: Home) -> None:
    walk = tab(address=home.address)
    about = walk.look("fetch('api/stage').then(answer => answer.json())")
    assert about["game"] is False and not re.search(r"real|both", json.dumps(about), re.IGNORECASE)
    walk.page.click('#start-screen [data-do="about"]')
    walk.page.keyboard.press("Escape")
    walk.begin()
    assert not {"command:toggle", "command:both", "command:fewer", "command:more"} & set(listed(walk))
    walk.page.keyboard.press(",")
    shown = walk.look("document.body.textContent")
    assert not re.search(r"real game|side by side", shown, re.IGNORECASE)
    assert walk.page.locator("#views button").count() == 0
    frame = walk.look("dreamwalk.view.newest.frame")
    walk.page.keyboard.press("Escape")
    for key in ("g", "b", "Tab"):
        walk.page.keyboard.press(key)
    walk.until(f"dreamwalk.view.newest.frame > {frame} + 20")
    assert walk.look("dreamwalk.view.newest.view") == "dream"


def test_fingers_reach_everything(tab: Callable[..., Tab], home: Home) -> None:
    walk = tab(address=home.address, **PHONE).begin()
    shown = walk.page.locator("#pads button")
    buttons = {str(one.get_attribute("data-action")): one for one in shown.all()}
    thumbs = {
        walk.look(f"dreamwalk.bindings.at('Pad{stick}')?.id")
        for stick in ("LX-", "LX+", "LY-", "LY+", "RX-", "RX+")
    }
    assert set(buttons) | thumbs >= set(ACTIONS) and not set(buttons) & thumbs
    for action, button in buttons.items():
        home.forget()
        button.tap()
        home.arrives(*told(action))
    fingers = walk.context.new_cdp_session(walk.page)
    home.forget()
    for kind, points in (("touchStart", [(90, 700)]), ("touchMove", [(30, 700)])):
        where = [{"x": x, "y": y} for x, y in points]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": where})
    home.arrives("steering", -1.0)
    fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_a_game_pad_reaches_everything(tab: Callable[..., Tab], home: Home) -> None:
    walk = tab(address=home.address).begin()
    walk.look("""() => {
      window.pad = {axes: [0, 0, 0, 0], buttons: Array.from({length: 17}, () => ({pressed: false}))};
      navigator.getGamepads = () => [window.pad];
      dispatchEvent(new Event("gamepadconnected"));
    }""")
    codes = {
        action: walk.look(f"dreamwalk.bindings.on({json.dumps(action)}, 'pad')[0]") for action in ACTIONS
    }
    assert len(set(codes.values())) == len(ACTIONS)
    sticks = {"LX": 0, "LY": 1, "RX": 2, "RY": 3}
    for action, code in codes.items():
        home.forget()
        for part in re.findall(r"Pad(\w+[+-]?)", re.sub(r"\+Pad", " Pad", code)):
            if part[:2] in sticks:
                walk.look(f"pad.axes[{sticks[part[:2]]}] = {part[2]}1")
            else:
                walk.look(f"pad.buttons[{part}].pressed = true")
        home.arrives(*told(action))
        walk.look("pad.axes.fill(0); pad.buttons.forEach(button => (button.pressed = false))")


def test_more_buttons_than_a_keyboard_has(
    tab: Callable[..., Tab], serve_config: Callable[..., str], starts: list[GalleryStart]
) -> None:
    schema = ActionSchema(tuple(f"choice_{k}" for k in range(150)))
    page = tab(address=serve_config(AppConfig("wide.game", dream=Odd, starts=starts, actions=schema)))
    lines = listed(page)
    keys = [key for caps in lines.values() for key in caps]
    assert len(lines) >= 150 and all(lines.values()) and len(keys) == len(set(keys))


def test_tab_reaches_all_of_every_screen(
    tab: Callable[..., Tab], serve_config: Callable[..., str], address: str
) -> None:
    walk = tab(viewport={"width": 1280, "height": 800})
    assert reached(walk) == []
    walk.page.keyboard.press("?")
    assert reached(walk) == []
    walk.page.keyboard.press("Escape")
    walk.begin()
    walk.page.keyboard.press(",")
    walk.until("dreamwalk.panel.isOpen")
    assert reached(walk) == []
    page = tab(
        address=serve_config(config_of(Maker())), ready="#prompt", viewport={"width": 1280, "height": 800}
    )
    page.page.keyboard.type("a red hall")
    assert reached(page) == []


def test_keys_alone_begin_walk_set_and_leave(tab: Callable[..., Tab]) -> None:
    walk = tab()
    walk.type("#start-seed", "4711")
    walk.page.keyboard.press("Tab")
    assert walk.look("document.activeElement.id") == "start-dice"
    walk.look("document.activeElement.blur()")
    walk.page.keyboard.press("Enter")
    walk.until("dreamwalk.app.status.state === 'ready' && dreamwalk.view.newest")
    assert walk.look("dreamwalk.app.status.seed") == 4711
    for _ in range(20):
        walk.page.keyboard.press("Tab")
        if walk.look("document.activeElement.dataset.do") == "pause":
            break
    walk.page.keyboard.press("Space")
    walk.until("dreamwalk.app.status.paused")
    assert walk.look("dreamwalk.app.status.recording") is False
    walk.page.keyboard.press(",")
    walk.until("dreamwalk.panel.isOpen")
    walk.type("#p-seed", "x1-2")
    walk.page.keyboard.press("Enter")
    walk.until("dreamwalk.app.status.seed === 12")
    walk.page.focus("#p-steps")
    walk.page.keyboard.press("End")
    walk.until("dreamwalk.app.status.steps === dreamwalk.app.hello.most_steps")
    assert walk.look("dreamwalk.app.status.steps") > 8
    walk.page.keyboard.press("Escape")
    walk.until("!dreamwalk.panel.isOpen")
    assert walk.look("document.body.dataset.screen") == "walk", "the first Escape closes the settings"
    walk.page.keyboard.press("Escape")
    walk.until("document.body.dataset.screen === 'start'")
    walk.until("document.activeElement.id === 'enter'")
    walk.page.keyboard.press("Enter")
    walk.until("document.body.dataset.screen === 'walk' && dreamwalk.app.hello")


def test_every_button_of_the_settings_can_be_seen(tab: Callable[..., Tab]) -> None:
    walk = tab(viewport={"width": 1280, "height": 800}).begin()
    walk.page.keyboard.press(",")
    walk.until("dreamwalk.panel.isOpen")
    buttons, end = walk.page.locator("#panel button:not([hidden])"), time.monotonic() + 8
    while hidden := buttons.evaluate_all(UNSEEN):  # until the panel has slid in
        assert time.monotonic() < end, hidden
        time.sleep(0.05)


def test_a_class_of_the_style_sheets_means_one_thing() -> None:
    homes: dict[str, set[str]] = {}
    for sheet in PAGE.glob("*.css"):
        rules = re.sub(
            r"@media[^{]*\{((?:[^{}]*\{[^{}]*\})*[^{}]*)\}|/\*.*?\*/", "", sheet.read_text(), flags=re.S
        )
        for selectors in re.findall(r"([^{}]+)\{", rules):
            for selector in selectors.split(","):
                if re.fullmatch(r"\.[\w-]+", selector.strip()):
                    homes.setdefault(selector.strip(), set()).add(sheet.name)
    assert len(homes) > 30 and {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_no_handler_swallows_a_key_by_what_it_gives_back() -> None:
    """`node.onkeydown = (event) => false` prevents the default; listeners that are added cannot."""
    scripts = {path.name: path.read_text() for path in Path(PAGE).glob("*.js")}
    swallowing = {
        name: re.findall(r"(?<!socket)\.on(?!Drawn)[a-z]+ = .*", text) for name, text in scripts.items()
    }
    assert len(scripts) > 10 and not any(swallowing.values()), swallowing


def test_what_a_dream_has_not_learnt_is_grey_and_says_so(
    tab: Callable[..., Tab], serve_config: Callable[..., str], starts: list[GalleryStart]
) -> None:
    worlds: list[Room] = []

    def opened(kind: type[Room]) -> Room:
        worlds.append(kind(fps=30))
        return worlds[-1]

    pair = (lambda: opened(Imagined), lambda: opened(Room))
    config = AppConfig("room.test", *pair, starts, actions=ACTIONS_OF_ROOMS, unlearnt=("place", "pitch"))
    walk = tab(address=serve_config(config))
    walk.page.keyboard.press("?")
    assert "not learnt it yet; the real game has it" in walk.page.locator(".unlearnt").first.inner_text()
    assert walk.page.locator("#help .unlearnt").count() == 3, "the button, and both ways of the axis"
    walk.page.keyboard.press("Escape")
    walk.begin()
    grey = "document.querySelector('[data-key=place]').classList.contains('unlearnt')"
    walk.until(grey)
    walk.page.keyboard.press("e")
    assert "has not learnt it yet" in walk.page.locator(".toast").inner_text()
    walk.page.keyboard.press("PageUp")
    walk.until("dreamwalk.view.newest.frame > 30")
    assert all(world.placed == 0 and world.pitch == 0 for world in worlds)
    walk.page.keyboard.press("g")
    walk.until(f"dreamwalk.view.newest.view === 'game' && !{grey}")
    walk.page.keyboard.press("e")
    wait_for(lambda: sum(world.placed for world in worlds) == 1)
