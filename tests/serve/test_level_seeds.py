"""Levels from seeds, the map of what a dream knows, and the switch of its memory."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rooms import ACTIONS, HEIGHT, WIDTH, Imagined, Room, Visitor, some_picture
from starlette.websockets import WebSocketDisconnect
from tabs import Tab
from test_accessible import faults

from dreamwalk.data.walks import parse_walk
from dreamwalk.serve import AppConfig, DreamMemory, GalleryStart, LevelMap, Levels
from dreamwalk.serve.frames import encode_picture
from dreamwalk.world import World

Visit = Callable[..., Visitor]
MOST = 999


class Game(Room):
    """The room of a number: it is turned by it, and knows its poses and depth."""

    def __init__(self, number: int) -> None:
        super().__init__(fps=20)
        self.number = number

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        assert options and options["pose"] == [float(self.number), 2.0, 90.0]
        frame, _ = super().reset(seed=seed, options={"start": self.number % 4})
        return frame, self._info()

    def step(self, action: Any) -> Any:
        frame, *rest, _ = super().step(action)
        return frame, *rest, self._info()

    def _info(self) -> dict[str, Any]:
        pose, angle = np.eye(4), np.deg2rad(-self.yaw)
        pose[:2, 2], pose[:2, 3] = (np.cos(angle), np.sin(angle)), (self.x, self.y)
        depth = np.full((HEIGHT, WIDTH), float(self.number), np.float32)
        return {"world_from_camera": pose, "intrinsics": np.eye(3) * (1 + self.pitch), "depth": depth}


class Remembering(Imagined):
    """A dream that says what it was given, and whether it is told what it has shown."""

    def __init__(self) -> None:
        super().__init__(fps=20)
        self.recalling, self.given = True, {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.given, self.recalling = options or {}, True
        frame, _ = super().reset(seed=seed, options=options)
        self.pose = np.asarray(self.given.get("world_from_camera", np.eye(4)))
        return frame, {"world_from_camera": self.pose}

    def step(self, action: Any) -> Any:
        frame, *rest, _ = super().step(action)
        return frame, *rest, {"world_from_camera": self.pose}


class Stage:
    """A page with levels, and all that it has opened; some show more of their memory than a map."""

    strip = cloud = None
    """As `DreamMemory` takes them."""

    def __init__(self, starts: list[GalleryStart], **settings: Any) -> None:
        self.games: list[Game] = []
        self.dreams: list[Remembering] = []
        self.maps = 0
        memory = DreamMemory(self.draw, self.recall, self.strip, self.cloud)
        config = {"levels": Levels(self.open, MOST), "memory": memory, "actions": ACTIONS} | settings
        self.config = AppConfig("room.test", self.dream, starts=starts, **config)

    def dream(self) -> World:
        self.dreams.append(Remembering())
        return self.dreams[-1]

    def open(self, number: int) -> tuple[World, dict[str, Any]]:
        self.games.append(Game(number))
        return self.games[-1], {"pose": [float(number), 2.0, 90.0]}

    def draw(self, world: World) -> LevelMap | None:
        self.maps += 1
        picture = np.zeros((16, 16, 4), np.uint8)
        picture[: min(self.maps, 16)] = (200, 100, 50, 255)
        return LevelMap(picture, left=-8.0, top=8.0, scale=1.0)

    def recall(self, world: World, recalling: bool) -> None:
        assert isinstance(world, Remembering)
        world.recalling = recalling


@pytest.fixture
def stage(starts: list[GalleryStart]) -> Stage:
    return Stage(starts)


def test_a_seed_is_a_level_and_the_dream_begins_at_what_the_game_shows(stage: Stage, visit: Visit) -> None:
    visitor = visit(stage.config, query="?seed=5")
    assert visitor.until("hello")["views"] == ["dream", "game", "both"]
    _, (jpeg,) = visitor.frame(0)
    (game,), (dream,) = stage.games, stage.dreams
    assert game.number == 5 and jpeg == encode_picture(game._look())
    given = dream.given
    assert given["level"] == 5 and (given["depth"] == 5).all() and given["depth"].shape == (HEIGHT, WIDTH)
    assert np.allclose(given["world_from_camera"], game._info()["world_from_camera"])
    status = visitor.until("status", state="ready", message="")
    assert (status["level"], status["seed"], status["start"], status["aligned"]) == (5, 5, None, True)
    visitor.send("reset", seed=MOST + 1)
    assert visitor.until("error")["message"] == "a level is a whole number from 0 to 999, not 1000"
    assert visitor.until("status")["level"] == 5 and not game.closed
    visitor.send("reset", seed=6)
    assert visitor.until("status", level=6)["seed"] == 6
    assert game.closed and stage.games[-1].number == 6
    visitor.send("reset")
    visitor.frame(0)
    assert len(stage.games) == 2 and dream.given["level"] == 6, "the same level again"


def test_other_starts_and_pictures_have_no_game_beside_them(stage: Stage, visit: Visit) -> None:
    visitor = visit(stage.config, query="?seed=5&start=1")
    assert visitor.until("status", state="ready")["level"] is None and stage.games == []
    visitor.send("view", view="both")
    assert "does not know this place: begin in a level" in visitor.until("error")["message"]
    visitor.send("reset", seed=7)
    visitor.until("status", level=7)
    visitor.send("view", view="both")
    assert visitor.until("status", view="both")["aligned"]
    visitor.send("reset", image=some_picture())
    status = visitor.until("status", start=None, level=None)
    assert (status["view"], status["aligned"]) == ("dream", False) and stage.games[-1].closed


def test_the_game_beside_it_takes_the_same_actions_and_hands_over_what_it_sees(
    stage: Stage, visit: Visit
) -> None:
    visitor = visit(stage.config, query="?seed=5")
    visitor.asleep()
    visitor.send("input", seq=1, turning={"yaw": 8.0, "pitch": 3.0}, held=["forward"])
    visitor.step(4)
    (game,), (dream,) = stage.games, stage.dreams
    assert game.count == 0, "nobody looks at it, so it takes no time"
    visitor.send("view", view="both")
    visitor.until("status", view="both")
    assert (game.count, game.pitch) == (4, dream.pitch) and dream.pitch != 0
    visitor.send("view", view="game")
    visitor.until("status", view="game")  # or the frame of the change would be taken for that of a step
    visitor.step(2)
    visitor.send("view", view="dream")
    visitor.until("status", view="dream")
    given, info = dream.given, game._info()
    assert np.allclose(given["intrinsics"], info["intrinsics"]) and info["intrinsics"][0, 0] > 1
    assert np.allclose(given["world_from_camera"], info["world_from_camera"]) and (given["depth"] == 5).all()
    assert dream.image is not None and np.array_equal(dream.image, game._look())


def test_a_walk_in_a_level_replays_with_and_without_the_game(stage: Stage, visit: Visit, starts: Any) -> None:
    visitor = visit(stage.config, query="?seed=5")
    visitor.asleep()
    visitor.send("record", on=True)
    visitor.step(3)
    visitor.send("record", on=False)
    film = visitor.until("recorded")
    assert film["exact"]
    walk = visitor.client.get(film["walk"]).json()
    start = parse_walk(visitor.client.get(film["walk"]).content).start
    assert start["level"] == 5 and start["depth"].dtype == np.float32 and (start["depth"] == 5).all()
    visitor.send("replay", walk=walk)
    assert visitor.until("status", replay=3)["level"] == 5 and not stage.games[0].closed
    other = Stage(starts, levels=None, lacking="get it")
    alone = visit(other.config)
    alone.until("hello")
    alone.send("replay", walk=walk)
    alone.until("status", replay=3)
    assert np.array_equal(other.dreams[0].given["image"], start["image"])
    alone.send("replay", walk=walk | {"start": {"level": 5}})
    assert alone.until("error")["message"] == "this page makes no levels of seeds: get it"
    assert visitor.client.get("/api/stage").json()["levels"] == MOST
    assert alone.client.get("/api/stage").json()["lacking"] == "get it"


def test_the_memory_is_switched_and_stays_so(stage: Stage, visit: Visit) -> None:
    visitor = visit(stage.config, query="?seed=5")
    assert visitor.until("hello")["memory"] is True
    assert visitor.until("status", state="ready")["memory"] is True
    visitor.send("memory", recalling=False)
    visitor.until("status", memory=False)
    (dream,) = stage.dreams
    assert not dream.recalling
    for change in ({}, {"seed": 8}, {"start": 1}):
        visitor.send("reset", **change)
        visitor.frame(0)
        assert not dream.recalling
    visitor.send("record", on=True)
    visitor.send("record", on=False)
    assert not visitor.until("recorded")["exact"]
    visitor.send("memory", recalling=True)
    visitor.until("status", memory=True)
    assert dream.recalling


def test_maps_come_to_who_looks_and_not_with_every_frame(stage: Stage, visit: Visit) -> None:
    visitor = visit(stage.config, query="?seed=5")
    note, _ = visitor.frame(6)
    assert stage.maps == 0 and len(note.pose) == 12
    visitor.send("map", shown=True)
    drawn = visitor.until("map")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn["png"]))))
    assert picture.shape == (16, 16, 4) and (drawn["left"], drawn["top"], drawn["scale"]) == (-8, 8, 1)
    visitor.seldom("map", lambda: stage.maps)
    visitor.send("view", view="game")
    visitor.until("status", view="game")
    before = stage.maps
    visitor.frame()
    visitor.send("map", shown=False)
    visitor.send("view", view="dream")
    visitor.until("status", view="dream")
    visitor.frame()
    assert stage.maps == before


def test_a_page_without_them_says_so(make_config: Callable[..., AppConfig], visit: Visit) -> None:
    visitor = visit(make_config())
    assert visitor.until("hello")["memory"] is False
    visitor.send("memory", recalling=False)
    assert visitor.until("error")["message"] == "this dream has no memory to switch"
    visitor.send("map", shown=True)
    visitor.frame()
    assert "map" not in [kind for kind, _ in visitor.heard]


def test_a_level_that_there_is_not_is_refused_at_the_door(stage: Stage, visit: Visit) -> None:
    with pytest.raises(WebSocketDisconnect) as closed:
        visit(stage.config, query="?seed=1000").next()
    assert closed.value.reason == "seed must be a whole number from 0 to 999"


# ---- in a browser


@pytest.fixture
def page(
    stage: Stage, serve_config: Callable[..., str], tab: Callable[..., Tab]
) -> Iterator[Callable[..., Tab]]:
    home = serve_config(stage.config)
    yield lambda query="", **settings: tab(address=home + query, **settings)


@pytest.mark.browser
def test_a_level_is_typed_drawn_and_shared(page: Callable[..., Tab], stage: Stage) -> None:
    walk = page("?seed=41")
    assert walk.look("document.querySelector('#start-seed').value") == "41"
    assert walk.page.locator("#seed-label").inner_text().strip() == "level"
    for wrong in ("12w", "1000", "-3", ""):
        walk.type("#start-seed", wrong)
        walk.page.keyboard.press("End" if wrong else "Backspace")
        walk.page.keyboard.press("Enter")
        words = f", not “{wrong}”." if wrong else "."
        walk.page.wait_for_selector(f".toast.error:has-text('from 0 to 999{words}')")
        assert walk.look("document.body.dataset.screen") == "start" and stage.games == []
        assert walk.look("document.querySelector('#start-seed').value") == wrong
        walk.look("document.querySelector('#toasts').replaceChildren()")
    walk.page.click("#start-dice")
    drawn = int(walk.look("document.querySelector('#start-seed').value"))
    assert 0 <= drawn <= MOST and walk.page.url.endswith(f"?seed={drawn}")
    walk.type("#start-seed", "12")
    walk.page.keyboard.press("Enter")
    walk.until("dreamwalk.app.status.level === 12 && dreamwalk.view.newest")
    assert walk.page.url.endswith("?seed=12") and stage.games[-1].number == 12
    walk.page.keyboard.press("n")
    walk.until("dreamwalk.app.status.level !== 12")
    number = walk.look("dreamwalk.app.status.level")
    walk.until(f"location.search === '?seed={number}'")
    walk.page.keyboard.press(",")
    walk.until("dreamwalk.panel.isOpen")
    walk.type("#p-seed", "wasd")
    walk.until("dreamwalk.view.newest.frame > 4")
    assert walk.look("dreamwalk.view.newest.held") == [], "letters typed there walk nowhere"
    walk.page.keyboard.press("Enter")
    walk.page.wait_for_selector(".toast.error:has-text('not “wasd”')")
    assert walk.look("dreamwalk.app.status.level") == number
    walk.type("#p-seed", "77")
    walk.page.keyboard.press("Enter")
    walk.until("dreamwalk.app.status.level === 77 && location.search === '?seed=77'")
    walk.page.go_back()
    walk.until("document.body.dataset.screen === 'start' && location.search === '?seed=77'")
    assert walk.look("document.querySelector('#start-seed').value") == "77"


MARK = "dreamwalk.map.canvas.getContext('2d').getImageData(0, 0, 64, 64).data.reduce((a, b) => a + b, 0)"


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 720])
def test_the_map_grows_and_the_memory_is_switched(page: Callable[..., Tab], stage: Stage, width: int) -> None:
    walk = page("?seed=3", viewport={"width": width, "height": 700}, bypass_csp=True)
    walk.page.click("#enter")
    walk.until("dreamwalk.map.drawn && dreamwalk.map.place")
    before = walk.look(MARK)
    walk.until(f"{MARK} > {before}")
    around, drawn = (walk.page.locator(part).bounding_box() for part in ("#theatre", "#map"))
    assert drawn["width"] == drawn["height"] >= 84 and drawn["y"] >= around["y"] - 1
    assert drawn["x"] + drawn["width"] <= width
    assert not walk.page.locator("#memory-off").is_visible()
    walk.page.keyboard.press("x")
    walk.until("dreamwalk.app.status.memory === false")
    assert walk.page.locator("#memory-off").is_visible()
    walk.until("document.querySelector('#stats').textContent.includes('recalloff')")
    assert faults(walk, "memory off") == []
    walk.page.keyboard.press("r")
    walk.until("dreamwalk.view.newest.frame < 5")
    assert not stage.dreams[-1].recalling and walk.page.locator("#memory-off").is_visible()
    walk.page.click('.tools [data-do="memory"]')
    walk.until("dreamwalk.app.status.memory === true")
    assert not walk.page.locator("#memory-off").is_visible() and stage.dreams[-1].recalling
    walk.page.keyboard.press("m")
    walk.until("document.querySelector('#map').hidden")
    walk.rests(lambda: stage.maps)
    walk.page.keyboard.press("m")
    walk.until("!document.querySelector('#map').hidden")
    walk.page.keyboard.press("b")
    walk.until("dreamwalk.view.newest.view === 'both'")
    assert walk.page.locator("#map").is_visible() and walk.page.locator("#second").is_visible()
    walk.page.keyboard.press("g")
    walk.until("dreamwalk.view.newest.view === 'dream'")


@pytest.mark.browser
def test_the_page_says_what_is_lacking_and_has_no_empty_tools(
    starts: list[GalleryStart], serve_config: Callable[..., str], tab: Callable[..., Tab]
) -> None:
    without = Stage(starts, levels=None, memory=None, lacking="With a game there is more.")
    walk = tab(address=serve_config(without.config))
    assert walk.page.locator("#lacking").inner_text() == "With a game there is more."
    walk.begin(start=1, seed=4)
    for tool in ("another", "memory", "map"):
        assert not walk.page.locator(f'.tools [data-do="{tool}"]').is_visible()
    assert not walk.page.locator("#map").is_visible() and "seed" not in walk.page.url
