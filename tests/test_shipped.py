"""The dream that ships: it obeys, and it does not dissolve."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

import dreamwalk
from dreamwalk.clip import Clip
from dreamwalk.commands.play import open_app
from dreamwalk.commands.sample_path import path_cameras
from dreamwalk.evaluation.fidelity import psnr, sharpness, to_bytes
from dreamwalk.memory.contract import CameraState
from dreamwalk.memory.world_cache import WorldCache
from dreamwalk.rollout.dream import Dream
from dreamwalk.rollout.streaming import finished_frames
from dreamwalk.schedules.staircase import SCHEDULES
from dreamwalk.serve.world_pair import WorldPair
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.open import PRETRAINED, locate, shipped
from dreamwalk.systems.path_sampling import PathRequest, PathSampling
from dreamwalk.systems.voyager import Voyager
from dreamwalk.weights import files
from dreamwalk.worlds.doom import Doom


def test_no_weights_explain_themselves_by_themselves() -> None:
    """What the page says about weights may name others, but never leads back."""
    told = {name: " ".join(files.metadata(locate(name))["notes"].values()) for name in shipped()}
    named = {name: {other for other in shipped() if other in text} for name, text in told.items()}
    assert named["nextframe.doom"] == {"forcing.doom"}  # whose weights they are
    for name, others in named.items():
        assert name not in others
        assert not any(name in named[other] for other in others), name


@pytest.fixture(scope="module")
def world() -> Dream:
    return dreamwalk.load("nextframe.doom").world(seed=0)


def film(world: Dream, steps: int, **turn: float) -> torch.Tensor:
    """uint8 `(1, t, 3, h, w)` of walking forward."""
    action = world.actions.action(["forward"] if not turn else [], **turn)
    frames = np.stack([world.step(action)[0] for _ in range(steps)])
    return torch.from_numpy(frames).permute(0, 3, 1, 2)[None]


def test_all_weights_that_ship_open_and_travel() -> None:
    assert {
        "artokens.doom",
        "autoencode.doom",
        "inverse.doom",
        "nextframe.doom",
        "forcing.doom",
        "forcing.rooms",
        "moviegen.doom",
        "voyager.doom",
        "worldmem.doom",
    } <= set(shipped())
    for name in shipped():
        assert dreamwalk.load(name).about["notes"]["trained"]
    assert sum(path.stat().st_size for path in PRETRAINED.iterdir()) < 48e6


def test_every_start_of_the_page_opens_dream_and_game(world: Dream) -> None:
    stage = open_app("nextframe.doom", "cpu")
    scene = WorldPair(replace(stage, dream=lambda: world))
    for start in stage.starts:
        scene.begin(7, start.options)
        scene.advance(np.zeros(world.actions.size, np.float32))
    scene.look("game")
    scene.advance(np.zeros(world.actions.size, np.float32))
    scene.look("dream")
    seen = scene.advance(np.zeros(world.actions.size, np.float32))
    scene.close()
    assert seen.pictures[0].shape == (96, 128, 3)


def turned_right(world: Dream, starts: range) -> float:
    """Share of eight frames of turning each way, from each start, that the inverse-dynamics model reads
    so."""
    examiner, right = dreamwalk.load("inverse.doom"), []
    for start in starts:
        for yaw in (8.0, -8.0):
            first, _ = world.reset(seed=start, options={"start": start})
            video = torch.cat(
                [torch.from_numpy(first).permute(2, 0, 1)[None, None], film(world, 8, yaw=yaw)], 1
            )
            with torch.inference_mode():
                read = examiner.read(video)[1][0, :, 0]
            right += (torch.sign(read) == np.sign(yaw)).tolist()
    return float(np.mean(right))


def test_it_turns_as_it_is_told(world: Dream) -> None:
    assert turned_right(world, range(len(world.world_spec.starts))) > 0.9


def test_tokens_turn_as_they_are_told_and_stay_rooms() -> None:
    """Turning where one begins, there are still things to see half a turn later."""
    tokens = dreamwalk.load("artokens.doom").world(seed=0)
    assert turned_right(tokens, range(4)) > 0.8
    late = []
    for start in range(6):
        tokens.reset(seed=0, options={"start": start})
        film(tokens, 21, yaw=8.0)
        late.append(film(tokens, 16, yaw=8.0))
    assert np.mean([float(sharpness(each).mean()) for each in late]) > 4
    assert np.mean([float(each.float().std(dim=(0, 1)).mean()) for each in late]) > 7


def test_it_does_not_dissolve_and_does_not_get_lost(world: Dream) -> None:
    """300 frames of walking and turning, walls or not, beside the game: a good part of its detail is there in
    the last hundred, and the dreamer still stands where the player does."""
    game = Doom("home")
    frame, info = game.reset(seed=1, options={"start": 2})
    world.reset(seed=1, options={"image": frame, "world_from_camera": info["world_from_camera"]})
    random = np.random.default_rng(0)
    late: dict[str, list[np.ndarray]] = {"dream": [], "game": []}
    for step in range(300):
        if step % 12 == 0:
            yaw = float(random.choice([-8.0, 0.0, 8.0]))
        action = world.actions.action(["forward"], yaw=yaw)
        shown = {"dream": world.step(action), "game": game.step(action)}
        if step >= 200:
            for name, outcome in shown.items():
                late[name].append(outcome[0])
    game.close()
    films = {name: torch.from_numpy(np.stack(f)).permute(0, 3, 1, 2)[None] for name, f in late.items()}
    assert sharpness(films["dream"]).mean() > 0.25 * sharpness(films["game"]).mean()
    assert films["dream"].float().std(dim=(0, 1)).mean() > 10  # and it still moves
    apart = [outcome[4]["world_from_camera"][:2, 3] for outcome in shown.values()]
    assert np.linalg.norm(apart[0] - apart[1]) < 96  # units, of 6,000 walked


def begun(world: Dream, starts: list[int]) -> Clip:
    """A batch of starts."""
    know, count = world.world_spec, len(starts)
    return Clip(
        video=torch.from_numpy(know.starts[starts]).permute(0, 3, 1, 2)[:, None],
        actions=torch.zeros(count, 1, 7),
        world_from_camera=torch.from_numpy(know.poses[starts])[:, None],
        intrinsics=torch.from_numpy(know.intrinsics).expand(count, 1, 3, 3),
    )


@torch.inference_mode()
def test_standing_still_is_still(world: Dream) -> None:
    """From every start, also after some walking, the pose stays; and from some the picture is looked at."""
    system, still = world.system, torch.zeros(12, 7)
    memory = system.memory.begin()
    here = at = CameraState.of_clip(begun(world, list(range(12))), 0)
    for _ in range(400):
        at = system.memory.next_camera(at, still, memory)
    assert (at.pose - here.pose).norm(dim=(1, 2)).max() < 1e-3
    for _ in range(20):
        at = system.memory.next_camera(at, still.index_fill(1, torch.tensor([0]), 1.0), memory)
    assert ((at.pose - here.pose)[:, :3, 3].norm(dim=1) > 50).float().mean() > 0.5, "and it can walk"
    for step in range(150):
        at = system.memory.next_camera(at, still, memory)
        stopped = at if step == 50 else stopped if step > 50 else here
    assert (at.pose - stopped.pose).norm(dim=(1, 2)).max() < 0.1
    session, kept = system.begin(begun(world, [0, 7, 11]), seed=3), {}
    for frame in range(1, 81):
        latents = system.advance(session, still[:3])
        if frame in (5, 79, 80):
            kept[frame] = to_bytes(system.codec.decode(latents))
    assert psnr(kept[80], kept[5]).min() > 35
    assert (kept[80].int() - kept[79].int()).abs().max() <= 2, "nothing changes any more: 400 are as 80"


def test_one_begins_where_one_sees_rooms_and_walks_through_doors(world: Dream) -> None:
    """The starts are the real game's pictures at these poses; strolls lead from room to room, and turn."""
    know, game = world.world_spec, Doom("home")
    rooms, sights = [], []
    for start, pose, stroll in zip(know.starts, know.poses, know.strolls, strict=True):
        heading = float(np.rad2deg(np.arctan2(pose[1, 2], pose[0, 2])))
        frame, info = game.reset(seed=0, options={"pose": (*pose[:2, 3].tolist(), heading)})
        assert psnr(*(torch.from_numpy(p).permute(2, 0, 1)[None, None] for p in (frame, start))) > 35
        sights.append(np.where(info["depth"] == 0, 800, info["depth"])[40:56].clip(max=800).mean())
        seen = {game.level.room_at(*pose[:2, 3])}
        for vector in know.learnt(stroll):
            info = game.step(world.actions.unpack(vector))[4]
            seen.add(game.level.room_at(*info["world_from_camera"][:2, 3]))
        rooms.append(len(seen - {None}))
    game.close()
    assert min(sights) > 180 and np.mean(sights) > 220
    assert rooms[0] >= 3 and np.mean(rooms) >= 2.5
    assert (np.abs(know.strolls[..., 5]) > 0.05).mean() > 0.3


def test_what_is_not_learnt_is_said() -> None:
    for name in ("nextframe.doom", "forcing.doom"):
        know = dreamwalk.load(name).world_spec
        assert set(know.unlearnt) == {"place", "pitch"} and (know.world, know.level) == ("doom", "home")


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_shows_the_same_place(name: str) -> None:
    """Turning on the spot: frames are as sharp as one after another, and nearly those."""
    system = dreamwalk.load("forcing.doom")
    start = system.world().opening({"start": 2}, seed=0)
    actions = torch.zeros(1, 12, 7)
    actions[..., 5] = 0.25
    films = []
    for schedule in (system.schedule(name), system.schedule("next-frame")):
        steps = system.stream(start, actions, schedule=schedule, seed=1)
        films.append(to_bytes(system.codec.decode(torch.cat(list(finished_frames(steps, 12)), 1))))
    assert sharpness(films[0]).mean() > 0.8 * sharpness(films[1]).mean() > 2
    assert psnr(*films).mean() > 22


def test_clips_show_the_rooms_that_words_name() -> None:
    """By their colour, from four seeds each."""
    prompts = ["turn left in a red metal room", "walk through a green marble hall"] * 4
    clips = dreamwalk.load("moviegen.doom").sample(prompts, request=ClipRequest(frames=9, steps=8, seed=3))
    colours = clips.float().mean(dim=(1, 2, 3))
    assert (colours.argmax(1) == torch.tensor([0, 1] * 4)).float().mean() > 0.8


def test_clips_turn_where_words_say() -> None:
    """Read by the inverse dynamics model, from four seeds each."""
    prompts = ["turn left in a stone room", "turn right in a stone room"] * 4
    clips = dreamwalk.load("moviegen.doom").sample(prompts, request=ClipRequest(frames=17, steps=8, seed=5))
    _, axes = dreamwalk.load("inverse.doom").read(clips.permute(0, 1, 4, 2, 3))
    assert (axes[..., 0].sum(1).sign() == torch.tensor([-1, 1] * 4)).float().mean() > 0.8


def test_a_scene_keeps_what_its_picture_shows() -> None:
    """A few steps and a turn from a start of its own: where the picture shows the way, that is there."""
    system = dreamwalk.load("voyager.doom")
    assert isinstance(system, Voyager) and system.world_spec is not None
    given, size = system.world_spec, system.config.picture_size
    depth, rgb = given.depths[0].astype(np.float32), torch.from_numpy(given.starts[0]).movedim(-1, 0)
    moves = path_cameras(
        system.config, "forward:0.5,pan-right:20", lens=given.intrinsics, depth=depth, frames=17
    )
    poses, lenses = (torch.tensor(x).float() for x in (moves.world_from_camera, moves.intrinsics))
    picture = rgb.float() / 127.5 - 1, torch.from_numpy(depth)
    with closing(WorldCache()) as cache, closing(WorldCache()) as first:
        first.insert(picture[0][None], picture[1][None], poses[:1], lenses[:1], time=0)
        shown = first.render(poses, lenses, size=size)
        request = PathRequest(*picture, poses, lenses, ClipRequest(("",), steps=2))
        sampling = PathSampling(system, request, cache)
        for _ in sampling.steps():
            pass
        made, far = sampling.frames()
        known = shown.mask[-1] == 1
        error = ((made[-1] - shown.rgb[-1]) / 2).square().mean(0)
        assert 0.3 < known.float().mean() < 0.95
        assert -10 * error[known].mean().log10() > 20
        assert made[-1].movedim(0, -1)[~known].std(0).min() > 0.05 and len(cache) > len(first)
        assert far.isfinite().all()
