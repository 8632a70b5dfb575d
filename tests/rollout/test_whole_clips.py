"""Clips on the executor: what is known stays, guidance is where it should be, windows agree."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from gaussian import each
from published_schedules import keyframes
from torch import Tensor

from dreamwalk.errors import UserError
from dreamwalk.layers.text import TextEmbedding, beside
from dreamwalk.rollout.clip_predictor import ClipPredictor, TiledVelocity, WindowedPredictor
from dreamwalk.rollout.execute import KeyedNoise, ModelInput, Predictor, execute
from dreamwalk.schedules import guidance
from dreamwalk.schedules.clip_plans import together
from dreamwalk.schedules.plans import Plan
from dreamwalk.schedules.sigmas import linear_quadratic_sigmas, spaced_sigmas
from dreamwalk.schedules.staircase import staircase
from dreamwalk.systems import moviegen
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.conditionings import Conditioning, Continuation, FirstFrame, FirstLast, Redo
from dreamwalk.systems.moviegen import Moviegen

ORDER = ClipRequest(("walk ahead", "turn left"), steps=3)


@pytest.fixture(scope="module")
def system() -> Moviegen:
    torch.manual_seed(0)
    system = Moviegen(moviegen.tiny()).eval()
    for parameter in system.backbone.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return system


def video(frames: int) -> Tensor:
    return torch.randint(0, 255, (1, frames, 3, 32, 32), dtype=torch.uint8)


def last(system: Moviegen, request: ClipRequest) -> Tensor:
    with torch.inference_mode():
        return list(system.generate(request))[-1].latents


def test_a_clip_depends_on_its_own_words_and_seed_only(system: Moviegen) -> None:
    both = last(system, ORDER)
    alone = last(system, replace(ORDER, prompts=ORDER.prompts[1:], seed=1))
    assert torch.allclose(both[1:], alone, atol=1e-4)
    assert not torch.allclose(both[1:], last(system, replace(ORDER, prompts=("walk",), seed=1)), atol=1e-2)


@pytest.mark.parametrize(
    ("kind", "frames", "given", "known"),
    [(FirstFrame, 9, 1, [0]), (FirstLast, 9, 2, [0, 2]), (Continuation, 13, 9, [0, 1, 2])],
)
def test_what_is_known_stays_bit_for_bit(
    system: Moviegen, kind: Callable[[Tensor], Conditioning], frames: int, given: int, known: list[int]
) -> None:
    shown = video(given)
    made = last(system, replace(ORDER, conditioning=kind(shown), frames=frames))
    assert torch.equal(made[:, 0], system.encode(shown.expand(2, -1, -1, -1, -1))[:, 0])
    free = last(system, replace(ORDER, frames=frames))
    for index in range(made.shape[1]):
        assert torch.equal(made[0, index], made[1, index]) == (index in known)
        assert not torch.equal(made[:, index], free[:, index])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"guidance": math.nan}, "guidance must be a finite number, got nan"),
        ({"embedded_guidance": math.inf}, "embedded_guidance must be a finite number"),
        ({"rescale": math.nan}, "rescale must be a finite number"),
        ({"frames": 0}, "at least one frame, got 0"),
        ({"steps": 0}, "from 1 to 64, got 0"),
        ({"steps": 2.5}, "whole number from 1 to 64, got 2.5"),
    ],
)
def test_numbers_that_no_clip_takes_are_refused(
    system: Moviegen, change: dict[str, float], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        last(system, replace(ORDER, **change))  # type: ignore[arg-type]


def test_dreamt_anew_a_clip_keeps_the_less_the_stronger(system: Moviegen) -> None:
    shown = video(9)
    was = system.encode(shown)
    changes = [
        (last(system, replace(ORDER, conditioning=Redo(shown, s), steps=10)) - was).abs().mean()
        for s in (0.3, 0.7, 1.0)
    ]
    assert changes[0] < changes[1] < changes[2]


def test_a_guidance_of_one_asks_once_and_guidance_is_linear() -> None:
    asked = []

    def velocity(
        x: Tensor, sigma: Tensor, text: TextEmbedding, *, guidance: Tensor | None, cond: Tensor | None
    ) -> Tensor:
        asked.append(len(x))
        return text.tokens.amax((1, 2))[:, None, None, None, None] * torch.ones_like(x)

    text, negative = TextEmbedding(torch.full((2, 4, 1), 2.0)), TextEmbedding(torch.full((2, 1, 1), 0.5))
    start = torch.zeros(2, 3, 1, 2, 2)
    for weight, expected in ((1.0, 2.0), (3.0, 0.5 + 3 * 1.5)):
        plan = guidance.guided(together([1.0, 0.5, 0.0], 3, begin=1), guidance.conditions(weight))
        made = execute(plan, ClipPredictor(velocity, text, negative), KeyedNoise((1, 2), ()), given=start)
        assert torch.allclose(made, torch.tensor(-0.5 * expected))
    assert asked == [2, 4]


def by_text(
    x: Tensor, sigma: Tensor, text: TextEmbedding, *, guidance: Tensor | None, cond: Tensor | None
) -> Tensor:
    """A velocity that depends on the level of every frame and on the words."""
    levels = sigma[:, None] if sigma.ndim == 1 else sigma
    return text.tokens.mean((1, 2))[:, None, None, None, None] + levels[:, :, None, None, None] * x


@pytest.mark.parametrize("window", [0, 2])
def test_a_plan_guides_clips(window: int) -> None:
    """As if the velocity were mixed before it is asked."""
    text, negative = (TextEmbedding(torch.full((1, 2, 3), value).double()) for value in (1.5, -0.5))
    sigmas, noise = spaced_sigmas("linear", 4, shift_by=1.0), KeyedNoise((3,), (2, 2, 2))
    guided = guidance.guided(staircase(sigmas, 4, lag=0, mask="bidirectional"), guidance.conditions(3.0))

    def dreamt(plan: Plan, predict: Predictor) -> Tensor:
        predict = WindowedPredictor(predict, window, window // 2) if window else predict
        return execute(plan, predict, lambda frame, use: noise(frame, use).double())

    def mixed(branch: ModelInput) -> Tensor:
        sigma = branch.sigma[:, :, None, None, None]
        return -0.5 + 3.0 * (1.5 + 0.5) + sigma * branch.x

    own, predictor = dreamt(together(sigmas, 4), each(mixed)), ClipPredictor(by_text, text, negative)
    for plan in (guided, guidance.guided(together(sigmas, 4), guidance.conditions(3.0))):
        torch.testing.assert_close(dreamt(plan, predictor), own, atol=1e-12, rtol=0)
    assert (own - dreamt(together(sigmas, 4), ClipPredictor(by_text, text))).abs().max() > 0.1


@pytest.mark.parametrize(
    ("make", "negative", "sentence"),
    [
        (lambda g: staircase(g, 4, lag=0), True, "take a plan with the mask `bidirectional`"),
        (lambda g: staircase(g, 4, lag=4, chunk=2, mask="block"), True, "see one another"),
        (lambda g: keyframes(g, 5, every=2), True, r"and the plan reads \(0, 2, 4\)"),
        (
            lambda g: guidance.guided(together(g, 2), guidance.conditions(2.0)),
            False,
            "there is none: give `negative`",
        ),
    ],
)
def test_a_plan_that_clips_cannot_follow_is_refused(
    make: Callable[[list[float]], Plan], negative: bool, sentence: str
) -> None:
    text = TextEmbedding(torch.zeros(1, 2, 3))
    predict = ClipPredictor(by_text, text, text if negative else None)
    with pytest.raises(UserError, match=sentence):
        execute(make(spaced_sigmas("linear", 4, shift_by=1.0)), predict, KeyedNoise((3,), (2, 2, 2)))


def test_rescaling_brings_back_the_spread_of_the_clean_prediction() -> None:
    x, velocities = torch.randn(1, 3, 2, 4, 4), torch.randn(2, 3, 2, 4, 4)
    text = TextEmbedding(torch.zeros(1, 1, 1))
    predictor = ClipPredictor(lambda x, sigma, text, guidance, cond: velocities, text, text)
    plan = guidance.guided(together([1.0, 0.6, 0.0], 3, begin=1), guidance.conditions(5.0, rescale=1.0))
    made = execute(plan, predictor, KeyedNoise((0,), ()), given=x)  # one step: x - 0.6 v
    assert torch.isclose(made.std(), (x - 0.6 * velocities[:1]).std(), rtol=1e-4)
    assert not torch.isclose(
        (x - 0.6 * (velocities[1:] + 5 * velocities.diff(dim=0).neg())).std(), made.std()
    )


def test_windows_that_agree_change_nothing() -> None:
    read = ModelInput(torch.randn(1, 11, 2, 4, 4), (0.6,) * 11, tuple(range(11)), (0,) * 11)
    sizes = []

    def predict(part: ModelInput) -> Tensor:
        sizes.append(part.x.shape[1])
        return 2 * part.x

    (v,) = WindowedPredictor(each(predict), 4, 2)([read])
    assert torch.allclose(v, 2 * read.x, atol=1e-6)
    assert sizes == [4] * 5


def test_tiles_that_agree_change_nothing() -> None:
    """Where a velocity knows only its own place, asking tile by tile changes nothing, what is shown beside it
    included."""
    x, cond = torch.randn(2, 2, 3, 2, 7, 11, dtype=torch.float64)
    sizes = []

    def velocity(
        x: Tensor, sigma: Tensor, text: TextEmbedding, *, guidance: Tensor | None, cond: Tensor | None
    ) -> Tensor:
        assert cond is not None
        sizes.append(tuple(x.shape[3:]))
        return x.sin() + cond

    text = TextEmbedding(torch.zeros(2, 1, 1))
    tiled = TiledVelocity(velocity, (4, 5), (1, 2))
    made = tiled(x, torch.ones(2), text, guidance=None, cond=cond)
    torch.testing.assert_close(made, x.sin() + cond, rtol=0, atol=1e-14)
    assert sizes == [(4, 5)] * 6


def test_tiles_blend_where_they_share() -> None:
    """Of two that disagree the answer goes from one to the other, evenly and about the middle."""
    calls = iter((0.0, 1.0))
    tiled = TiledVelocity(lambda x, *_, **__: torch.full_like(x, next(calls)), (1, 6), (0, 4))
    made = tiled(
        torch.zeros(1, 1, 1, 1, 8),
        torch.ones(1),
        TextEmbedding(torch.zeros(1, 1, 1)),
        guidance=None,
        cond=None,
    )
    assert made.flatten().tolist() == pytest.approx([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])


@pytest.mark.parametrize("area", [(32, 64), (64, 128)])
def test_an_area_that_covers_all_changes_nothing(system: Moviegen, area: tuple[int, int]) -> None:
    order = replace(ORDER, size=(32, 64))
    assert torch.equal(last(system, replace(order, area=area)), last(system, order))
    assert not torch.equal(last(system, replace(order, area=(16, 32))), last(system, order))


def test_words_side_by_side_are_padded() -> None:
    both = beside(TextEmbedding(torch.ones(1, 3, 2)), TextEmbedding(torch.ones(1, 1, 2)))
    assert both.mask is not None and both.mask.tolist() == [[True] * 3, [True, False, False]]


def test_movie_gens_grid() -> None:
    """The figures of section 3.4.2: 25 of 1000 even steps, then 25 growing ones."""
    clean = 1 - linear_quadratic_sigmas(50)
    assert clean[[1, 25, 26, 27, 28]].tolist() == pytest.approx([0.001, 0.025, 0.02752, 0.03308, 0.04168])
    assert clean[[0, 48, 49, 50]].tolist() == pytest.approx([0, 0.8521, 0.9245, 1], abs=1e-4)
    assert spaced_sigmas("linear", 4, shift_by=7.0) == [1, 0.75, 0.5, 0.25, 0]
    assert spaced_sigmas("shifted", 2, shift_by=3.0) == [1, 0.75, 0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"size": (32, 40)}, "nearest size is 32x"),
        ({"frames": -1}, "at least one frame"),
        ({"area": (4, 30)}, "tiles of 4x30 .* nearest size is"),
        ({"steps": 3, "spacing": "linear-quadratic"}, "take 4"),
        ({"conditioning": Continuation(video(5))}, "more frames"),
        ({"conditioning": Redo(video(9)), "frames": 5}, "make them equal"),
        ({"conditioning": Redo(video(5), strength=0.0)}, "strength"),
        ({"conditioning": Redo(video(5), strength=math.nan)}, "strength"),
        ({"conditioning": FirstFrame(video(1)), "size": (48, 48)}, "scale them"),
        ({"conditioning": FirstLast(video(2))}, "three latents"),
    ],
)
def test_impossible_requests_are_refused(system: Moviegen, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        system.sample_video(replace(ORDER, **change))
