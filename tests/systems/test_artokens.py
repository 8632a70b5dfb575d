"""Artokens: clips learnt by heart, walks without an end, every order and head, refusals."""

from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from learning import fallen, learn
from toy import Toy

from dreamwalk.backbones.token_heads import TokenSampling
from dreamwalk.clip import Clip, batch
from dreamwalk.codecs.delta import delta_tiny
from dreamwalk.codecs.quantizers import BSQConfig, FSQConfig, UnquantizedConfig
from dreamwalk.codecs.residual_quantizers import MultiScaleConfig, ResidualConfig
from dreamwalk.codecs.shuffle import ShuffleVAEConfig
from dreamwalk.codecs.tokens import tokenized
from dreamwalk.codecs.vector_quantizer import VQConfig
from dreamwalk.conditions.byte_encoder import ByteEncoderConfig
from dreamwalk.rollout.dream import Dream
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems import artokens
from dreamwalk.systems.artokens import ArTokens, ArTokensConfig
from dreamwalk.systems.open import load
from dreamwalk.systems.token_disturbance import disturbance
from dreamwalk.training.world_spec import world_spec
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json

LAYERS = ShuffleVAEConfig(4, (16, 32), 1, ((2, 2, 2),), None, 4)
"""Two frames of 8x8 pixels to a latent: a grid of 4x4 in frames of 32x32."""
SIZES = {"actions": 7, "grid": (4, 4), "frames": 3, "width": 32, "depth": 2, "heads": 2}
VIDEO: dict[str, ArTokensConfig] = {
    "token": ArTokensConfig(tokenized(LAYERS, FSQConfig((4, 4, 4, 4))), **SIZES),
    "row": ArTokensConfig(tokenized(LAYERS, BSQConfig(4)), **SIZES, order="row", played="row"),
    "frame": ArTokensConfig(tokenized(LAYERS, VQConfig(4, 16)), **SIZES, order="frame", played="frame"),
    "scale": ArTokensConfig(
        tokenized(LAYERS, MultiScaleConfig(FSQConfig((4, 4, 4, 4)), ((1, 1), (2, 2), (4, 4)), 2)),
        **SIZES,
        order="scale",
        played="scale",
    ),
    "continuous": ArTokensConfig(tokenized(LAYERS, UnquantizedConfig(4)), **SIZES),
    "kl": ArTokensConfig(LAYERS, **SIZES, order="row", played="row"),
}


@pytest.fixture(scope="module")
def clip() -> Clip:
    return batch(list(Toy(clip_frames=12).clips(range(2))))


DELTA: dict[str, ArTokensConfig] = {
    "row": replace(artokens.tiny(), order="row", played="row"),
    "frame": replace(artokens.tiny(), order="frame", played="frame"),
    "diagonal": replace(artokens.tiny(), played="diagonal"),
    "scale": replace(
        artokens.tiny(),
        codec=replace(delta_tiny(), quantizer=MultiScaleConfig(FSQConfig((4, 4, 4, 4)), ((1, 1), (2, 2)), 2)),
        order="scale",
        played="scale",
    ),
    "continuous": replace(artokens.tiny(), codec=replace(delta_tiny(), quantizer=UnquantizedConfig(4))),
    "whole frames": replace(
        artokens.tiny(), codec=replace(delta_tiny(), tells="frame"), order="row", played="row", disturbed=0.5
    ),
}


def test_every_weight_learns_in_bfloat16(clip: Clip) -> None:
    """A weight without a gradient has no state of the optimizer, and a run with such ones does not resume."""
    torch.manual_seed(0)
    system = ArTokens(artokens.tiny())
    with torch.autocast("cpu", torch.bfloat16):
        system.loss(clip.first(5), rows())["loss"].backward()
    assert all(p.grad is not None for p in system.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", DELTA)
def test_every_order_is_walked_in(name: str, clip: Clip) -> None:
    """The same frames from a snapshot, past the length of the list, from one frame or several."""
    torch.manual_seed(0)
    system = ArTokens(DELTA[name]).eval()
    assert system.loss(clip.first(5), rows())["loss"].isfinite()
    for history in (1, 3, 7):
        session = system.begin(clip.first(history), seed=2)
        for t in range(history, 9):
            system.advance(session, clip.actions[:, t])
        twin = session.clone()
        shown = [system.advance(session, clip.actions[:, t]) for t in (9, 10, 11)]
        assert all(map(torch.equal, shown, [system.advance(twin, clip.actions[:, t]) for t in (9, 10, 11)]))
        assert torch.equal(session.shown, twin.shown) and session.stream.frame == 11


@pytest.fixture(scope="module")
def walker() -> ArTokens:
    torch.manual_seed(0)
    system = ArTokens(artokens.tiny()).eval()
    for p in system.parameters():  # so that nothing that begins at zero hides a fault
        torch.nn.init.normal_(p, std=0.05) if p.ndim > 1 else None
    return system


def rows() -> KeyedGenerator:
    return KeyedGenerator([(0, 0, row) for row in range(2)])


@pytest.mark.parametrize("name", VIDEO)
def test_every_order_and_head_goes_on(name: str, clip: Clip) -> None:
    """A finite loss with gradients everywhere in the network, and videos of any length."""
    torch.manual_seed(0)
    system = ArTokens(VIDEO[name])
    assert all(not p.requires_grad for p in system.codec.parameters())
    first = clip.first(5)
    terms = system.loss(first, rows())
    terms["loss"].backward()
    assert terms["loss"].isfinite() and f"{VIDEO[name].order}_loss" in terms
    system.eval()
    for history in (1, 5, 9):
        calls: list[int] = []
        video = system.continued(clip, history=history, advance=partial(calls.append, 1))
        assert video.shape == (2, 12 - history, 3, 32, 32) and video.isfinite().all()
        assert len(calls) == 12 - history
    with pytest.raises(ValueError, match=r"2 frames are no whole latents.*give a history of 3"):
        system.continued(clip, history=2)
    measured = system.measured(clip)
    assert measured["tokens"] == system.order.tokens / 6
    with pytest.raises(ValueError, match="tokens stand for several frames at once"):
        system.begin(clip.first(1))


def test_a_clip_is_learnt_by_heart(clip: Clip) -> None:
    """And drawn without chance it is the true one, token by token."""
    torch.manual_seed(0)
    config = replace(artokens.tiny(), cond_dropout=0.0, sampling=TokenSampling(temperature=0))
    system, clip = ArTokens(config), clip.first(5)
    assert fallen(learn(system, clip, steps=60)) < 0.2
    system.eval()
    dreamed, coded = system.continued(clip, history=1), system.restored(clip)[:, 1:].clamp(-1, 1)
    torch.testing.assert_close(dreamed, coded, atol=1e-4, rtol=0)


def test_a_walk_goes_on_without_an_end(walker: ArTokens, clip: Clip) -> None:
    """Past the length of the list; a snapshot is left alone, and rows do not depend on one another."""
    session = walker.begin(clip.first(1), seed=3)
    for t in range(1, 9):
        walker.advance(session, clip.actions[:, t])
    assert session.stream.left == 4 and session.stream.conditions is None
    twin = session.clone()
    shown = [walker.advance(session, clip.actions[:, t]) for t in (9, 10)]
    again = [walker.advance(twin, clip.actions[:, t]) for t in (9, 10)]
    assert all(map(torch.equal, shown, again)) and torch.equal(session.shown, twin.shown)
    one = Clip(video=clip.video[1:], actions=clip.actions[1:])
    batched, alone = (walker.begin(each.first(1), seed=3) for each in (clip, one))
    tokens = [walker.advance(walk, each.actions[:, 1]) for walk, each in ((batched, clip), (alone, one))]
    assert torch.equal(tokens[0][1:], tokens[1])


def test_guidance_leads_a_walk_towards_its_actions(walker: ArTokens, clip: Clip) -> None:
    guided = deepcopy(walker)
    guided.config = replace(walker.config, sampling=TokenSampling(guidance=4.0))
    torch.nn.init.normal_(guided.backbone.head.out.weight)
    walks = [system.begin(clip.first(1), seed=3) for system in (walker, guided)]
    tokens = [guided.advance(walks[1], clip.actions[:, t]) for t in range(1, 7)]
    assert walks[1].stream.left == 2 and all(index.shape == (2, 4) for index in tokens)
    assert walks[1].stream.cache.keys.shape[1] == 2 * walks[0].stream.cache.keys.shape[1]


def test_history_is_what_was_dreamed(walker: ArTokens, clip: Clip) -> None:
    """Tokens that are given lead on as those that were drawn do."""
    session, frames = walker.begin(clip.first(1), seed=1), [clip.video[:, 0].float() / 127.5 - 1]
    for t in range(1, 4):
        walker.advance(session, clip.actions[:, t])
        frames.append(session.shown)
    whole = session.stream
    symbols = walker.symbols(clip.first(4))
    given = walker.stream([1, 1])
    assert symbols.seen is not None
    walker._give(given, whole.symbols[:, :12], walker._conditions(clip.first(4)), symbols.seen)
    assert given.group == whole.group and given.cache.held == whole.cache.held
    assert walker.begin(clip, seed=1).stream.left == 8  # of eleven frames three are kept


@torch.no_grad()
def test_of_a_longer_clip_a_window_is_drawn(clip: Clip) -> None:
    """Windows begin at any coded frame, and have the features of their own frames."""
    torch.manual_seed(0)
    config = replace(artokens.tiny(), cond_dropout=0.0)
    model, one = ArTokens(config), Clip(video=clip.video[:1, :7], actions=clip.actions[:1, :7])
    for p in model.backbone.parameters():
        torch.nn.init.normal_(p, std=0.5)
    symbols, conditions = model.symbols(one), model._conditions(one)
    values, seen = symbols.values.unflatten(1, (6, 4)), symbols.seen
    assert seen is not None
    slots, expected = model.make_order().slots(), []
    for first in range(3):
        frames = slice(first, first + config.frames)
        told = {"conditions": conditions[:, frames], "seen": seen[:, frames]}
        expected.append(float(model.backbone.loss(values[:, frames].flatten(1), slots, **told).mean()))
    found = {round(float(model.loss(one, KeyedGenerator([(seed,)]))["loss"]), 3) for seed in range(24)}
    assert found == {round(loss, 3) for loss in expected} and len(found) == 3


def test_some_clips_are_told_as_wrong_as_they_are_drawn(clip: Clip) -> None:
    """Tokens near the true ones for the most part; what is learnt are the true ones, of all clips."""
    torch.manual_seed(0)
    system = ArTokens(DELTA["whole frames"])
    many = Clip(video=clip.video[:1].expand(40, -1, -1, -1, -1), actions=clip.actions[:1].expand(40, -1, -1))
    generator = KeyedGenerator([(seed,) for seed in range(40)])
    symbols = system.symbols(many, disturbance(system.codec.quantizer, generator, most=0.5))
    told, true = symbols.told, system.symbols(clip.first(12)).values[:1]
    assert told is not None and torch.equal(symbols.values, true.expand(40, -1))
    moved = (told != symbols.values).float().mean(1)
    assert 0.25 < (moved == 0).float().mean() < 0.55 and 0.1 < moved[moved > 0].mean() < 0.4
    with pytest.raises(ValueError, match="only tokens of a delta codec with FSQ are disturbed"):
        replace(VIDEO["row"], disturbed=0.5)


def test_other_orders(walker: ArTokens) -> None:
    assert walker.stream([0], "diagonal").order.passes == 3 * 4
    with pytest.raises(ValueError, match=r"were trained in the order 'blocks of 1x1x1.*sample in that one"):
        walker.stream([0], "row").advance()
    with pytest.raises(ValueError, match="the order `scale` is for a multi-scale codec"):
        replace(artokens.tiny(), order="scale")
    with pytest.raises(ValueError, match="of the order `row` are not played by `token`"):
        replace(artokens.tiny(), order="row")
    with pytest.raises(ValueError, match="have several indices"):
        ArTokens(ArTokensConfig(tokenized(LAYERS, ResidualConfig(FSQConfig((4, 4, 4, 4)), 2)), **SIZES))


def test_diagonal_steps_are_trained_on_their_own_mask(clip: Clip) -> None:
    torch.manual_seed(0)
    system = ArTokens(replace(artokens.tiny(), played="diagonal")).eval()
    torch.nn.init.normal_(system.backbone.head.out.weight)
    for block in system.blocks:
        torch.nn.init.normal_(block.modulation.project.weight, std=0.2)
    plain = ArTokens(artokens.tiny()).eval()
    plain.load_state_dict(system.state_dict())
    both, one = (each.loss(clip.first(5), rows()) for each in (system, plain))
    assert torch.equal(both["token_loss"], one["token_loss"])
    assert not torch.equal(both["diagonal_loss"], both["token_loss"]) and "diagonal_loss" not in one
    assert system.passes == 3 and plain.passes == 4


def test_captions_are_heard(clip: Clip) -> None:
    """And what guidance compares with is an empty one, and no action."""
    torch.manual_seed(0)
    config = replace(artokens.tiny(), text_encoder=ByteEncoderConfig(width=16, heads=2), cond_dropout=0.0)
    config = replace(config, sampling=TokenSampling(guidance=2.0))
    system = ArTokens(config)
    for block in system.blocks:
        torch.nn.init.normal_(block.text.out.weight, std=0.5)
    first, losses = clip.first(5), []
    for words in (["a", "a"], ["a", "b"], ["", ""]):
        terms = system.loss(replace(first, caption=words), rows())
        losses.append(terms["loss"])
    assert len({float(loss.detach()) for loss in losses}) == 3
    losses[0].backward()
    assert all(p.grad is not None for p in system.text_encoder.parameters())
    deaf = ArTokens(replace(config, cond_dropout=1.0))
    deaf.load_state_dict(system.state_dict())
    words = [deaf.loss(replace(first, caption=each), rows())["loss"] for each in (["a", "b"], ["c", "d"])]
    assert torch.equal(*words)
    system.eval()
    walks = [system.begin(replace(clip.first(1), caption=word)) for word in ("hall", "yard")]
    drawn = [torch.cat([system.advance(walk, clip.actions[:, t]) for t in range(1, 6)]) for walk in walks]
    assert not torch.equal(*drawn)


def test_weights_open_themselves_and_are_walked_in(tmp_path: Path, toy_data: Path) -> None:
    from dreamwalk.data.shards import Shards

    torch.manual_seed(0)
    system, path = ArTokens(artokens.tiny()), tmp_path / "weights.safetensors"
    tensors, about = world_spec(Shards(str(toy_data))).pack()
    metadata = {"system": "artokens", "config": to_json(system.config), "world_spec": about}
    files.save(path, system.state_dict() | tensors, metadata=metadata)
    world = load(path).world(seed=5)
    assert isinstance(world, Dream) and world.steps is None
    forward = world.actions.action(["forward"])
    world.step(forward)
    state, twin = world.state(), deepcopy(world)
    assert twin.session.stream.model is world.system.backbone
    frames = [world.step(forward)[0] for _ in range(6)]
    world.restore(state)
    assert all((a == world.step(forward)[0]).all() for a in frames)
    assert all((a == twin.step(forward)[0]).all() for a in frames)
    world.reset(seed=1, options={"start": 0, "around": [{"start": 1}]})  # there is no memory to keep that
    with pytest.raises(ValueError, match="no denoising steps"):
        world.steps = 2
