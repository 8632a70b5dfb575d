"""The delta codec: true motion, the closed loop, learning, and refusals."""

import math
from dataclasses import replace

import pytest
import torch
from learning import learn
from toy import Toy

from dreamwalk.clip import Clip, batch
from dreamwalk.codecs.delta import DeltaCodecConfig, delta_tiny
from dreamwalk.codecs.motion import true_motion
from dreamwalk.codecs.quantizers import UnquantizedConfig
from dreamwalk.codecs.warp import cells, sampled, transformed
from dreamwalk.evaluation.fidelity import psnr, to_bytes
from dreamwalk.systems.autoencode import Autoencode, AutoencodeConfig


@pytest.fixture(scope="module")
def clip() -> Clip:
    """Turns in a panorama that is infinitely far."""
    clip = batch(list(Toy(clip_frames=6).clips(range(2))))
    return replace(clip, depth=torch.zeros(2, 6, 32, 32))


def still(shift: tuple[float, float, float], *, depth: float) -> Clip:
    """Two frames of 16x24 of a wall, the second from aside."""
    poses = torch.eye(4).repeat(1, 2, 1, 1)
    poses[0, 1, :3, 3] = torch.tensor(shift)
    lens = torch.tensor([[20.0, 0, 12], [0, 20, 8], [0, 0, 1]]).repeat(1, 2, 1, 1)
    walls = torch.full((1, 2, 16, 24), depth)
    video = torch.zeros(1, 2, 3, 16, 24, dtype=torch.uint8)
    return Clip(
        video=video, actions=torch.zeros(1, 2, 7), world_from_camera=poses, intrinsics=lens, depth=walls
    )


def test_motion_of_a_wall_by_hand() -> None:
    """A step of 3 to the right before a wall at 10 moves it by 20 * 3 / 10 pixels; the sky stays."""
    found = true_motion(still((3.0, 0, 0), depth=10.0), 4)
    assert found is not None
    flow, known = found
    assert flow.shape == (1, 1, 2, 4, 6) and known.all()
    torch.testing.assert_close(flow[:, :, 0], torch.full((1, 1, 4, 6), 6.0))
    torch.testing.assert_close(flow[:, :, 1], torch.zeros(1, 1, 4, 6), atol=1e-5, rtol=0)
    sky = true_motion(still((3.0, 0, 0), depth=0.0), 4)
    assert sky is not None and sky[0].abs().max() < 1e-5
    far = true_motion(still((40.0, 0, 0), depth=10.0), 4)
    assert far is not None and not far[1][0, 0, :, 3:].any()


def test_motion_of_a_turn_is_where_the_pixels_were() -> None:
    """The sky, moved along its true flow, is the next frame, but where that shows something new."""
    side, angle = 64, 0.15
    lens = torch.tensor([[32.0, 0, 32], [0, 32, 32], [0, 0, 1]])
    turn = torch.eye(4)
    turn[0, 0] = turn[2, 2] = math.cos(angle)
    turn[0, 2], turn[2, 0] = math.sin(angle), -math.sin(angle)
    v, u = torch.meshgrid(*2 * (torch.arange(side) + 0.5,), indexing="ij")
    rays = torch.linalg.inv(lens) @ torch.stack([u, v, torch.ones_like(u)]).flatten(1)
    waves = torch.tensor([[3.0, 1, 0], [0, 4, 2], [2, 0, 3]])  # what is seen depends on the direction alone
    poses = torch.stack([torch.eye(4), turn])
    seen = [(waves @ torch.nn.functional.normalize(pose[:3, :3] @ rays, dim=0)).sin() for pose in poses]
    before, now = (colours.unflatten(1, (side, side))[None] for colours in seen)
    video, blank = torch.zeros(1, 2, 3, side, side, dtype=torch.uint8), torch.zeros(1, 2, side, side)
    still = Clip(video, torch.zeros(1, 2, 7), poses[None], lens.expand(1, 2, 3, 3), blank)
    found = true_motion(still, 1)
    assert found is not None and found[0].abs().amax() > 4
    place = cells(now, side, side) + (found[0][0] * 2 / side).permute(0, 2, 3, 1)
    error = ((sampled(before, place) - now).abs() * (place.abs() < 0.95).all(-1)).amax()
    assert error < 0.02 < 0.1 < (before - now).abs().amax()


def test_without_depth_or_poses_nothing_is_known(clip: Clip) -> None:
    assert true_motion(replace(clip, depth=None), 4) is None
    assert true_motion(replace(clip, world_from_camera=None), 4) is None


def test_homographies_move_points() -> None:
    points = cells(torch.zeros(1), 2, 3)
    assert points[0, 0, 0].tolist() == pytest.approx([-2 / 3, -1 / 2])
    shift = torch.tensor([[[1.0, 0, 0.5], [0, 1, -0.25], [0, 0, 1]]])
    torch.testing.assert_close(transformed(shift, points), points + torch.tensor([0.5, -0.25]))
    scaled = torch.eye(3)[None].clone()
    scaled[0, 2, 2] = 2.0
    torch.testing.assert_close(transformed(scaled, points), points / 2)


@torch.no_grad()
def test_at_first_each_frame_is_the_one_before(clip: Clip) -> None:
    codec = delta_tiny().build().eval()
    x = clip.video.float() / 127.5 - 1
    coded = codec.code(x, clip.actions)
    torch.testing.assert_close(coded.video, x[:, :1].expand_as(x), atol=1e-5, rtol=0)
    assert coded.tokens.shape == (2, 5, 2, 2) and coded.seen.shape == (2, 5, 4, codec.seen_features)


@torch.no_grad()
def test_the_linear_code_alone_tells_what_changes(clip: Clip) -> None:
    codec = delta_tiny().build().eval()
    x = clip.video.float() / 127.5 - 1
    assert not codec.fitted
    codec.fit(x)
    assert codec.fitted
    error, copied = (
        (video[:, 1] - x[:, 1]).square().mean() for video in (codec.restored(x, clip.actions), x.roll(1, 1))
    )
    assert error < 0.7 * copied


def test_it_learns_by_true_motion_and_decodes_what_it_coded(clip: Clip) -> None:
    torch.manual_seed(0)
    config = AutoencodeConfig(
        DeltaCodecConfig(7, delta_tiny().quantizer, (16, 16, 32, 32), motion=0.3), noise=0.0
    )
    assert config.needs_depth and not AutoencodeConfig(replace(delta_tiny(), motion=0.0)).needs_depth
    system = Autoencode(config)
    system.codec.fit(clip.video.float() / 127.5 - 1)
    rows = learn(system, clip, steps=80)
    assert all(p.grad is not None for p in system.parameters())  # or a run would not resume
    assert rows[-1]["motion"] < rows[0]["motion"] / 2 and rows[-1]["perplexity"] > 3
    system.eval()
    restored = to_bytes(system.preview(clip))
    copied = psnr(clip.video[:, :1].expand_as(clip.video), clip.video)[:, 1:].mean()
    assert psnr(restored, clip.video)[:, 1:].mean() > copied + 3
    codec, x = system.codec, clip.video.float() / 127.5 - 1
    with torch.no_grad():
        coded, frame = codec.code(x, clip.actions), x[:, 0]
        for t in range(5):
            action = clip.actions[:, t + 1]
            frame = codec.decode(
                codec.look(frame, action), codec.quantizer.values(coded.tokens[:, t]), action
            )
            torch.testing.assert_close(frame, coded.video[:, t + 1].clamp(-1, 1), atol=1e-5, rtol=0)
        # tokens of other clips in the batch change nothing
        alone = codec.code(x[:1], clip.actions[:1])
        assert torch.equal(alone.tokens, coded.tokens[:1])


@torch.no_grad()
def test_small_changes_say_nothing_and_others_lose_nothing(clip: Clip) -> None:
    """Without quantizing, what the dead zone takes off is put back; a wider one leaves fewer values."""
    x, zeros = clip.video.float() / 127.5 - 1, []
    for dead_zone in (0.0, 0.5, 1.0):
        codec = DeltaCodecConfig(7, UnquantizedConfig(6), (16, 16, 32), dead_zone=dead_zone).build().eval()
        codec.fit(x)
        seen = codec.look(x[:, 0], clip.actions[:, 1])
        values = codec.encode(seen, x[:, 1]).values
        linear = codec.change(codec._patches(x[:, 1] - x[:, 0]))  # all networks are zero yet
        said = values != 0
        torch.testing.assert_close(codec._linear(values)[said], linear[said], atol=1e-4, rtol=1e-4)
        zeros.append(1 - float(said.float().mean()))
    assert 0 == zeros[0] < zeros[1] < zeros[2] < 1


def test_tokens_of_a_frame_by_itself_mend_what_was_wrong(clip: Clip) -> None:
    """They do not depend on the frame before, and after a wrong one they soon show what is right."""
    torch.manual_seed(0)
    codec = DeltaCodecConfig(7, delta_tiny().quantizer, (16, 16, 32), tells="frame", mistaken=0.5)
    system = Autoencode(AutoencodeConfig(codec, noise=0.0))
    learn(system, clip, steps=150, lr=3e-3)
    video, actions = clip.video.float() / 127.5 - 1, clip.actions
    wrong = torch.cat([video[:, :1].flip(0), video[:, 1:]], 1)
    with torch.no_grad():
        right, mended = (system.codec.code(each, actions) for each in (video, wrong))
    assert torch.equal(right.tokens, mended.tokens) and not torch.equal(right.seen, mended.seen)
    far = [float((each.video - video)[:, t].square().mean()) for each in (right, mended) for t in (1, -1)]
    before = float((wrong - video)[:, 0].square().mean())
    assert far[2] < 0.5 * before and far[3] < 1.5 * far[1] + 0.01


@pytest.mark.parametrize(
    ("video", "actions", "message"),
    [
        ((1, 2, 3, 32, 32), (1, 2, 5), "have actions of length 5 and the codec takes 7"),
        ((1, 1, 3, 32, 32), (1, 1, 7), "give two frames or more"),
        ((1, 2, 3, 30, 32), (1, 2, 7), "the nearest size is 32x32"),
    ],
)
def test_what_cannot_be_coded(video: tuple[int, ...], actions: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        delta_tiny().build().code(torch.zeros(video), torch.zeros(actions))


@pytest.mark.parametrize(("widths", "level"), [((16,), 0), ((16, 16), 2)])
def test_levels_that_there_are_not(widths: tuple[int, ...], level: int) -> None:
    with pytest.raises(ValueError, match="two levels or more, and its tokens one of them"):
        DeltaCodecConfig(widths=widths, level=level)


@torch.no_grad()
def test_tokens_may_be_finer_than_the_coarsest_features(clip: Clip) -> None:
    codec = DeltaCodecConfig(7, delta_tiny().quantizer, (16, 16, 32), level=1).build().eval()
    coded = codec.code(clip.video.float() / 127.5 - 1, clip.actions)
    assert codec.stride == (1, 8, 8) and coded.tokens.shape == (2, 5, 4, 4)
    assert coded.seen.shape == (2, 5, 16, codec.seen_features)
