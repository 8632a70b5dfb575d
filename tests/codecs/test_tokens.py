"""The codec of tokens: exact in time, streamed and whole, by one config after another."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dreamwalk.codecs import CodecConfig
from dreamwalk.codecs.causal import CausalVAEConfig, small
from dreamwalk.codecs.quantizers import BSQConfig, FSQConfig, UnquantizedConfig
from dreamwalk.codecs.residual_quantizers import MultiScaleConfig, ResidualConfig
from dreamwalk.codecs.tokens import (
    TokenCodec,
    TokenCodecConfig,
    matched,
    small_tokens,
    tokenized,
    tokens_tiny,
)
from dreamwalk.codecs.vector_quantizer import VQConfig
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.weights.config import from_json, to_json

INNER = CausalVAEConfig(8, (16, 16), 1, ((2, 2, 2),), None, 2, norm="position", attention="frame")
KINDS = {
    "fsq": tokens_tiny(),
    "bsq": tokenized(INNER, BSQConfig(10)),
    "vq": tokenized(INNER, VQConfig(4, 64)),
    "residual": tokenized(INNER, ResidualConfig(VQConfig(4, 16), 3)),
    "scales": tokenized(INNER, MultiScaleConfig(BSQConfig(6), ((1, 1), (2, 3), (4, 6)), 3)),
}
SHAPES = {"residual": (4, 6, 3), "scales": (31,)}
EACH = pytest.mark.parametrize("kind", KINDS)


def film(frames: int) -> Tensor:
    """Two of 16x24 that differ in every pixel."""
    draw = torch.Generator().manual_seed(frames)
    return torch.rand(2, frames, 3, 16, 24, generator=draw, dtype=torch.float64) * 2 - 1


def trained(kind: str) -> TokenCodec:
    """Its averages measured, in float64."""
    torch.manual_seed(0)
    codec = KINDS[kind].build()
    for step in range(3):
        codec.bottleneck(film(9).float(), KeyedGenerator([(0, step, row) for row in range(2)]), noise=0.0)
    return codec.double()


@EACH
@torch.no_grad()
def test_tokens_are_the_latents(kind: str) -> None:
    codec, video = trained(kind), film(8)
    tokens, latents = codec.tokens(video), codec.encode(video)
    assert tokens.shape == (2, 5, *SHAPES.get(kind, (4, 6))) and tokens.dtype == torch.int64
    assert (
        latents.shape == (2, 5, codec.channels, 4, 6) and 0 <= tokens.min() <= tokens.max() < codec.vocabulary
    )
    assert torch.equal(codec.from_tokens(tokens).double(), latents)
    assert codec.decode(codec.from_tokens(tokens), 8).shape == video.shape
    assert 0 <= codec.agreement(video) <= 1


@EACH
@pytest.mark.parametrize("grad", [True, False])
def test_no_token_sees_a_later_frame(kind: str, grad: bool) -> None:
    """To the last bit: neither values, nor tokens, nor decoded frames change with what follows."""
    codec, video = trained(kind), film(9)
    later = video.clone()
    later[:, 3:] = later[:, 3:].flip(1)
    with torch.set_grad_enabled(grad):
        (a, b), (c, d) = ((codec.encode(x), codec.tokens(x)) for x in (video, later))
        assert torch.equal(a[:, :2], c[:, :2]) and torch.equal(b[:, :2], d[:, :2])
        assert not torch.equal(b[:, 2], d[:, 2])
        assert torch.equal(codec.decode(a)[:, :3], codec.decode(c)[:, :3])


@EACH
@torch.no_grad()
def test_a_beginning_has_the_tokens_of_the_whole(kind: str) -> None:
    """A picture too is a video, of one frame."""
    codec, video = trained(kind), film(9)
    whole = codec.tokens(video)
    for frames in (1, 3, 5):
        assert torch.equal(codec.tokens(video[:, :frames]), whole[:, : codec.latent_frames(frames)])


@EACH
@torch.no_grad()
def test_streamed_tokens_are_those_of_the_whole(kind: str) -> None:
    codec, video = trained(kind), film(8)
    whole, latents = codec.tokens(video), codec.encode(video)
    decoded = codec.decode(latents)
    for size in (1, 3, 8):
        streamed = list(codec.stream_tokens(video.split(size, dim=1)))
        assert [x.shape[1] for x in streamed] == [1] * 5 and torch.equal(torch.cat(streamed, 1), whole)
        assert torch.equal(torch.cat(list(codec.stream_encode(video.split(size, dim=1))), 1), latents)
        pieces = torch.cat(list(codec.stream_decode(codec.from_tokens(x) for x in whole.split(size, 1))), 1)
        torch.testing.assert_close(pieces, decoded, atol=1e-9, rtol=0)


@EACH
@torch.no_grad()
def test_half_a_codec_has_tokens_too(kind: str) -> None:
    """In bfloat16 throughout, latents are those of their tokens."""
    codec, video = trained(kind).bfloat16(), film(5).bfloat16()
    tokens = codec.tokens(video)
    assert torch.equal(codec.from_tokens(tokens), codec.encode(video)) and len(tokens.unique()) > 4
    decoded = codec.decode(codec.from_tokens(tokens))
    assert decoded.dtype == torch.bfloat16
    pieces = torch.cat(list(codec.stream_decode([codec.from_tokens(tokens)])), 1)
    torch.testing.assert_close(pieces, decoded, atol=0.1, rtol=0.1)


@EACH
def test_all_parameters_learn(kind: str) -> None:
    """But for the biases of keys, and what a KL term would train: log variances are not used."""
    torch.manual_seed(0)
    codec, video = KINDS[kind].build(), film(5).float()
    found = codec.bottleneck(video, KeyedGenerator([(0, 0, 0), (0, 0, 1)]), noise=0.0)
    loss = (codec.decode(found.latents) - video).square().mean() + sum(found.losses.values())
    loss.backward()
    still = [name for name, p in codec.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in still if not name.endswith("k.bias")]
    usage, dead = found.measured["usage"], found.measured["dead"]
    assert 0 < usage <= 1 <= found.measured["perplexity"]
    books = codec.quantizer.codebooks
    assert dead == pytest.approx((1 - float(usage)) * books * codec.vocabulary, abs=1e-3)


def test_use_is_counted_over_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not over more tokens than are kept."""
    monkeypatch.setattr("dreamwalk.codecs.quantizers.RECENT", 500)
    codec, found = tokens_tiny().build(), []
    for step in range(4):
        keys = [(0, step, row) for row in range(2)]
        found.append(codec.bottleneck(film(5 + step).float(), KeyedGenerator(keys), noise=0.0).measured)
        assert len(codec.quantizer.recent) == min(
            500, sum(48 * codec.latent_frames(5 + s) for s in range(step + 1))
        )
    assert found[1]["dead"] <= found[0]["dead"]


def test_one_family_by_config_alone() -> None:
    """Unquantized, with a KL term, and kinds of tokens: the same layers inside."""
    family = matched(INNER)
    assert list(family) == ["none", "kl", "fsq", "vq", "bsq8", "bsq16", "bsq24"] and family["kl"] == INNER
    for name, config in family.items():
        assert from_json(CodecConfig, to_json(config)) == config
        inner = config.codec if isinstance(config, TokenCodecConfig) else config
        assert replace(inner, channels=8) == INNER and config.stride == (2, 4, 4)
        codec = config.build()
        if name in ("fsq", "vq", "bsq16"):
            assert isinstance(codec, TokenCodec) and 15.9 < codec.quantizer.bits_per_token <= 16


@torch.no_grad()
def test_unquantized_latents_are_those_of_the_codec_inside() -> None:
    codec = tokenized(INNER, UnquantizedConfig(8)).build()
    video = film(3).float()
    assert torch.equal(codec.encode(video), codec.inner.encode(video))
    with pytest.raises(ValueError, match="take a codec with a quantizer"):
        codec.from_tokens(codec.tokens(video))


def test_the_small_one() -> None:
    with torch.device("meta"):
        codec = small_tokens().build()
    assert codec.stride == (4, 16, 16) and codec.vocabulary == 64_000 and codec.config.codec.strict


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="takes 6 channels, and the codec gives 16: build it with as many"):
        TokenCodecConfig(small(), FSQConfig())
    codec = KINDS["scales"].build()
    with pytest.raises(ValueError, match="17x24 do not divide by 4x4: the nearest size is 16x24"):
        codec.tokens(torch.zeros(1, 1, 3, 17, 24))
    with pytest.raises(ValueError, match="last scale has 4x6 latents, not 4x4: take frames of that size"):
        codec.tokens(torch.zeros(1, 1, 3, 16, 16))
    with pytest.raises(ValueError, match="tokens together, and 30 are none of these"):
        codec.from_tokens(torch.zeros(1, 2, 30, dtype=torch.long))
    with pytest.raises(ValueError, match="index 256 is outside the vocabulary of 0 to 255"):
        tokens_tiny().build().from_tokens(torch.full((1, 1, 4, 6), 256))
    with pytest.raises(
        ValueError, match=r"the axes that `tokens` gives them, \(b, t, ...\), not \(1, 4, 6\)"
    ):
        tokens_tiny().build().from_tokens(torch.zeros(1, 4, 6, dtype=torch.long))
    published = tokenized(replace(INNER, norm="group", groups=4), FSQConfig()).build()
    with pytest.raises(ValueError, match="norm='position' and attention='frame' can"):
        published.stream_tokens([])
