"""Dreams that were trained on one's own videos and games are walked in on the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tabs import Tab

from dreamwalk.clip import Clip
from dreamwalk.data.game_walks import GameWalks
from dreamwalk.data.writing import write_clips
from dreamwalk.serve import AppConfig
from dreamwalk.world import ActionSchema

pytestmark = pytest.mark.browser


class Filmed:
    """A source of clips with actions of their own names, as a folder of videos gives them."""

    clip_frames, rate, size = 12, 12.0, (32, 32)
    schema = ActionSchema(("jump", "open_door"), ("steer",), (2.0,))

    def describe(self) -> dict[str, Any]:
        return {"world": "videos", "level": "mine", "split": "train", "seed": 0}

    def clips(self, indices: range) -> Any:
        for index in indices:
            random = np.random.default_rng(index)
            video = random.integers(0, 255, (12, 3, 32, 32), np.uint8)
            actions = random.integers(0, 2, (12, 3)).astype(np.float32)
            yield Clip(video=video.transpose(0, 2, 3, 1), actions=actions)


def dreamt(data: Path, out: Path) -> AppConfig:
    """What `dreamwalk play` shows of a dream of this data, with random weights."""
    from dreamwalk.commands.play import open_app
    from dreamwalk.data.shards import Shards
    from dreamwalk.systems import nextframe
    from dreamwalk.training.world_spec import world_spec
    from dreamwalk.weights import files
    from dreamwalk.weights.config import to_json

    shards = Shards(data)
    config = replace(nextframe.tiny(), actions=shards.schema.size)
    tensors, about = world_spec(shards).pack()
    metadata = {"system": nextframe.NextFrame.name, "config": to_json(config), "world_spec": about}
    files.save(out / "weights.safetensors", config.build().state_dict() | tensors, metadata=metadata)
    return open_app(str(out), "cpu")


@pytest.mark.parametrize("kind", ["videos", "discrete game", "continuous game"])
def test_a_dream_of_ones_own_is_walked_in(
    kind: str, tmp_path: Path, tab: Callable[..., Tab], serve_config: Callable[..., str]
) -> None:
    if kind == "videos":
        data = write_clips(Filmed(), 2, tmp_path / "data")
    else:
        game = {"discrete game": "CartPole-v1", "continuous game": "Pendulum-v1"}[kind]
        walks = GameWalks(id=game, frames=32, size=(32, 32), clip_frames=8)
        data = write_clips(walks, len(walks), tmp_path / "data")
    config = dreamt(Path(data), tmp_path / "dream")
    assert config.actions is not None and config.game is None
    walk = tab(address=serve_config(config)).begin()
    assert walk.look("dreamwalk.app.hello.views") == ["dream"]
    about = walk.look("fetch('api/stage').then(answer => answer.text())")
    assert "Real game" not in about + walk.look("document.body.textContent")
    for action in walk.look("dreamwalk.bindings.actions.filter(action => action.kind !== 'command')"):
        key = walk.look(f"dreamwalk.bindings.on({json.dumps(action['id'])}, 'keys')[0]")
        walk.page.keyboard.down(key)
        index = config.actions.axes.index(action["name"]) if action["kind"] == "axis" else -1
        way = f"[{index}] * {1 if action.get('more') else -1} > 0"
        seen = f".axes{way}" if index >= 0 else f".held.includes({json.dumps(action['name'])})"
        walk.until(f"dreamwalk.view.newest{seen}")
        walk.page.keyboard.up(key)
        walk.until(f"!(dreamwalk.view.newest{seen})")
