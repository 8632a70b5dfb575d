"""A memory of points: what was seen is recalled from elsewhere, and a body walks among what is known."""

from dataclasses import replace

import pytest
import torch
from box_room import AHEAD, SIDE, STILL, dream_of_rooms, walk, walked

from dreamwalk.codecs.critic import CriticConfig
from dreamwalk.codecs.rgbd import codec_input, depth_channel, depth_of
from dreamwalk.errors import UserError
from dreamwalk.memory.clip_clouds import ClipClouds
from dreamwalk.memory.contract import CameraState
from dreamwalk.memory.kinematics import BodyConfig, Kinematics, stopped
from dreamwalk.memory.pixel_filter import PixelFilterConfig
from dreamwalk.memory.points import PointsConfig
from dreamwalk.schedules.generator import KeyedGenerator


def test_kinematics_are_found_behind_steps_that_were_held() -> None:
    found = Kinematics(7)
    found.fit(*walked())
    torch.testing.assert_close(found.turn[5], torch.tensor(0.5), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.glance[6], torch.tensor(0.2), atol=2e-2, rtol=0)
    wanted = torch.tensor([[0.7, 0, 0, 0, -6, 6, 0, 0, 0], [0, 0.7, 6, -6, 0, 0, 0, 0, 0]])
    torch.testing.assert_close(found.response, wanted, atol=0.02, rtol=0)


def moved(
    step: torch.Tensor, points: torch.Tensor, *, before: float = 0.0, eyes: float = 41.0
) -> torch.Tensor:
    """Where a step leads a body with its eyes over the origin, after a step so far up or down."""
    at, last = torch.tensor([0.0, 0.0, eyes]), torch.tensor([0.0, 0.0, before])
    return stopped(step, at, points, before=last, body=BodyConfig())


def test_walls_stop() -> None:
    spots = torch.arange(-60.0, 61.0, 4)
    floor = torch.cartesian_prod(spots, spots, torch.zeros(1)).T
    wall = torch.cartesian_prod(torch.full((1,), 30.0), spots, torch.arange(0.0, 128, 4)).T
    step = torch.tensor([24.0, 5.0, 0.0])
    torch.testing.assert_close(moved(step, floor), step)
    left = moved(step, torch.cat([floor, wall], 1))
    assert 5 < left[0] < 16, "up to the wall"
    torch.testing.assert_close(left[1:], step[1:], msg="and along it")
    assert not moved(step * 0, torch.cat([floor, wall], 1)).any()


def test_floors_carry() -> None:
    spots = torch.arange(-60.0, 61.0, 4)
    floor = torch.cartesian_prod(spots, spots, torch.zeros(1)).T
    beyond = (floor[0] > 10).float() * torch.eye(3)[2][:, None]
    step = torch.tensor([24.0, 0.0, 0.0])
    assert 4 < moved(step, floor + 16 * beyond)[2] < 16, "eyes follow feet slowly"
    assert 7 < moved(step * 0, floor, eyes=31.0, before=5.0)[2] <= 10, "and catch up"
    assert moved(step, floor + 40 * (floor[0] > 18) * torch.eye(3)[2][:, None])[0] < 5, "too high to climb"
    # Falling, each tic by a unit more; a ledge carries while the body touches it.
    off = floor - 60.0 * torch.eye(3)[2][:, None]
    falls = [float(moved(step * 0, off, before=before)[2]) for before in (0.0, -5.0, -15.0)]
    assert falls == pytest.approx([-5, -15, -24], abs=1)
    assert not moved(step * 0, torch.where(floor[0] > 8, off, floor))[2]
    few = torch.stack([torch.zeros(12), torch.zeros(12), -5.0 * torch.arange(12)])
    assert not moved(step * 0, few)[2], "a few points make no floor"
    # Things and walls have points at all heights, and lift nobody.
    post = torch.cartesian_prod(torch.tensor([10.0]), torch.tensor([10.0]), torch.arange(0.0, 24, 0.5)).T
    assert not moved(step * 0, torch.cat([floor, post], 1))[2]


def test_what_was_seen_is_recalled_from_elsewhere() -> None:
    made, seen, there = dream_of_rooms(), walk([(0, 0, 0), (0, 0, 45), (0, 0, 90)]), walk([(-20, 10, 40)])
    session = made.begin(seen)
    camera = CameraState.of_clip(there, 0)
    assert camera is not None
    found = session.memory.recall(camera, 3).rendering
    assert found is not None
    sure = found.mask[0] == 1
    assert sure.float().mean() > 0.7
    truth = codec_input(there, 4)[0, 0]
    assert (found.rgb[0] - truth[:3]).abs().mean(0)[sure].median() < 0.1
    assert (depth_of(depth_channel(found.depth[0])) / there.depth[0, 0] - 1).abs()[sure].median() < 0.02
    recalled = made.memory.to_inputs(session.memory.recall(camera, 3), made.codec)
    guess = made.codec.encode(codec_input(there, 4)) * 0.7
    assert recalled.guess is not None
    assert torch.nn.functional.cosine_similarity(recalled.guess.flatten(), guess.flatten(), dim=0) > 0.9


def test_a_session_writes_what_it_shows() -> None:
    made = dream_of_rooms()
    session = made.begin(walk([(0, 0, 0)]))
    twin = session.clone()
    (cloud,) = session.memory.rows
    points = len(cloud)
    for _ in range(3):
        made.advance(session, AHEAD)
    assert session.camera is not None and session.camera.pose[0, 0, 3] > 10
    assert len(cloud) > points and len(twin.memory.rows[0]) == points
    assert session.shown is not None and session.shown.shape == (1, 4, SIDE, SIDE)
    before = session.camera.pose
    for _ in range(20):
        made.advance(session, STILL)
    stands = session.camera.pose
    made.advance(session, STILL)
    assert (session.camera.pose - stands).abs().max() < 0.1 and not torch.equal(before, stands)


def test_it_learns_from_clouds_of_all_kinds() -> None:
    made = dream_of_rooms()
    clip = walk([(0, 0, h) for h in (0, 10, 20, 30)])
    clip = replace(clip, past=walk([(-30, 0, h) for h in (0, 20, 40, 60)]))
    loss = made.loss(clip, KeyedGenerator([(0, 0)]))["loss"]
    loss.backward()
    grads = [part.grad for part in made.memory.parameters()]
    assert loss.isfinite() and all(grad is not None and grad.isfinite().all() for grad in grads)
    with pytest.raises(UserError, match="past"):
        made.loss(replace(clip, past=None), KeyedGenerator([(0, 0)]))
    with pytest.raises(UserError, match="depth"):
        made.loss(replace(clip, depth=None), KeyedGenerator([(0, 0)]))
    with pytest.raises(UserError, match="poses"):
        made.loss(replace(clip, world_from_camera=None), KeyedGenerator([(0, 0)]))


def test_pixels_that_are_known_are_copied() -> None:
    memory = PointsConfig(pixels=PixelFilterConfig(width=8, blocks=1), critic=CriticConfig(width=8))
    made, seen, there = dream_of_rooms(memory), walk([(0, 0, 0), (0, 0, 20)]), walk([(0, 0, 10)])
    session, camera = made.begin(seen), CameraState.of_clip(there, 0)
    with torch.inference_mode():
        made.advance(session, STILL, camera=camera)
    error = (session.shown - codec_input(there, 4)[0])[0, :3].abs().mean(0)  # type: ignore[operator]
    assert error.median() < 0.1, "of a network that knows nothing yet"
    clip = replace(walk([(0, 0, h) for h in (0, 10)]), past=walk([(-30, 0, h) for h in (0, 20)]))
    terms = made.loss(clip, KeyedGenerator([(0, 0)]))
    assert {"pixels", "critic", "verdict", "depth"} < set(terms)
    terms["loss"].backward()
    for part in (made.memory.pixels, made.memory.critic, made.memory.depth):
        assert any(p.grad is not None and p.grad.any() for p in part.parameters())


def test_clouds_of_own_frames() -> None:
    """What the network makes of a clip takes the place of codes that were shaken, in dreamed frames alone."""
    config = PointsConfig(
        pixels=PixelFilterConfig(width=8, blocks=1), own_frames=True, empty_prob=0, older_prob=0
    )
    clip = replace(walk([(0, 0, h) for h in range(0, 40, 10)]), past=walk([(-30, 0, h) for h in (0, 20)]))
    losses = []
    for own in (False, True):
        made = dream_of_rooms(replace(config, own_frames=own, dreamed_prob=1.0))
        losses.append(made.loss(clip, KeyedGenerator([(0, 0)]))["loss"])
    losses[1].backward()
    assert losses[0] != losses[1]
    clouds = ClipClouds.of(clip, KeyedGenerator([(0, 0)]), made.codec, config=made.memory.config)
    mixed = clouds.with_own(torch.zeros(1, 4, 4, SIDE, SIDE))
    gone = (mixed.rgbd == 0).flatten(2).all(2)
    assert torch.equal(gone[:, 2:], clouds.dreamed[:, 2:]) and not gone[:, :2].any()


def test_a_picture_without_depth_is_given_some() -> None:
    made = dream_of_rooms(PointsConfig(pixels=PixelFilterConfig(width=8, blocks=1)))
    session = made.begin(replace(walk([(0, 0, 0)]), depth=None))
    assert len(session.memory.rows[0]) > 100
    with pytest.raises(UserError, match="depth"):
        dream_of_rooms().begin(replace(walk([(0, 0, 0)]), depth=None))


def test_what_was_seen_around_is_known_as_true() -> None:
    made = dream_of_rooms()
    session, camera = made.begin(walk([(0, 0, 0)])), CameraState.of_clip(walk([(0, 0, 180)]), 0)
    assert not session.memory.recall(camera, 1).rendering.mask.any()
    for heading in (90, 180, 270):
        seen = walk([(0, 0, heading)])
        made.memory.show(session.memory, seen, made.encode(seen))
    found = session.memory.recall(camera, 1).rendering
    assert (found.mask == 1).float().mean() > 0.5 and not found.dreamed.any()
