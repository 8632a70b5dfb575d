"""Quantizers: codes, indices and bits go there and back, in every precision, and codebooks follow."""

import math
from itertools import accumulate
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing import spawn

from dreamwalk.codecs.quantizers import BSQ, BSQConfig, FSQConfig, LFQConfig, UnquantizedConfig, bit_entropies
from dreamwalk.codecs.residual_quantizers import MultiScaleConfig, ResidualConfig
from dreamwalk.codecs.tokens import QuantizerConfig
from dreamwalk.codecs.vector_quantizer import VQ, VQConfig

PLAIN: dict[str, QuantizerConfig] = {
    "fsq": FSQConfig((4, 3, 5, 3)),
    "fsq-64000": FSQConfig(),
    "lfq": LFQConfig(7),
    "bsq": BSQConfig(9),
    "vq": VQConfig(3, 100),
}
STAGED: dict[str, QuantizerConfig] = {
    "residual-vq": ResidualConfig(VQConfig(4, 16), 3),
    "residual-fsq": ResidualConfig(FSQConfig((5, 4)), 2),
    "residual-bsq": ResidualConfig(BSQConfig(8), 3),
    "scales-vq": MultiScaleConfig(VQConfig(4, 16), ((1, 1), (2, 3), (4, 6)), 3),
    "scales-bsq": MultiScaleConfig(BSQConfig(6), ((1, 1), (2, 2), (4, 6)), filters=0),
}
ALL = PLAIN | STAGED


def vectors(config: QuantizerConfig, seed: int = 0) -> Tensor:
    """Frames of 4x6."""
    return torch.randn(3, 2, 4, 6, config.channels, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", PLAIN)
def test_every_code_goes_there_and_back(kind: str) -> None:
    torch.manual_seed(0)
    quantizer = PLAIN[kind].build()
    every = torch.arange(quantizer.vocabulary)
    values = quantizer.values(every)
    assert values.shape == (quantizer.vocabulary, quantizer.channels)
    assert torch.equal(quantizer.index(values), every) and len(values.unique(dim=0)) == len(every)
    bits = quantizer.bits(every)
    assert bits.shape[-1] == math.ceil(quantizer.bits_per_token) and torch.equal(
        quantizer.from_bits(bits), every
    )


@pytest.mark.parametrize("kind", ALL)
def test_values_are_those_of_the_indices(kind: str) -> None:
    """To the last bit, with a gradient that goes to the vectors as if nothing had been done."""
    torch.manual_seed(0)
    quantizer, z = ALL[kind].build(), vectors(ALL[kind])
    quantizer.measure(z)
    z.requires_grad_()
    values, indices, losses = quantizer(z)
    assert values.shape == z.shape and torch.equal(quantizer.values(indices), values)
    assert torch.equal(quantizer.from_bits(quantizer.bits(indices)), indices)
    assert all(term.ndim == 0 and term.isfinite() for term in losses.values())
    (gradient,) = torch.autograd.grad(values.sum(), z)
    assert gradient.isfinite().all() and gradient.any()
    if kind in STAGED or kind in ("vq", "lfq"):
        torch.testing.assert_close(gradient, torch.ones_like(z))


@pytest.mark.parametrize("kind", ALL)
@torch.no_grad()
def test_precision_changes_no_index(kind: str) -> None:
    """Neither under autocast nor of vectors in bfloat16, and the values stay float32."""
    torch.manual_seed(0)
    quantizer, z = ALL[kind].build(), vectors(ALL[kind])
    quantizer.measure(z)
    exact = quantizer(z)
    with torch.autocast("cpu", torch.bfloat16):
        under = quantizer(z)
        restored = quantizer.values(under.indices)
    assert torch.equal(under.indices, exact.indices) and torch.equal(under.values, exact.values)
    assert torch.equal(restored, exact.values) and restored.dtype == torch.float32
    half = quantizer(z.bfloat16())
    assert torch.equal(half.indices, quantizer(z.bfloat16().float()).indices)


def test_no_code_is_lost_in_bfloat16() -> None:
    """Of 64,000 codes 1,275 would be left if indices were computed in it."""
    quantizer = FSQConfig().build()
    every = torch.arange(quantizer.vocabulary)
    assert torch.equal(quantizer.index(quantizer.values(every).bfloat16().float()), every)
    half = 1.001 / 2 * (torch.tensor(quantizer.config.levels) - 1)
    even = torch.tensor([0.5 * (n % 2 == 0) for n in quantizer.config.levels])
    bounded = quantizer.values(every) * (torch.tensor(quantizer.config.levels) // 2)
    z = ((bounded + even) / half).atanh() - (even / half).atanh()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer(z).indices, every)


def test_fsq_reaches_all_its_levels() -> None:
    for levels in (3, 4, 5, 8, 9):
        quantizer = FSQConfig((levels,)).build()
        found = quantizer(torch.linspace(-9, 9, 4001)[:, None]).indices
        assert found.unique().tolist() == list(range(levels)) and (found.diff() >= 0).all()
        assert quantizer(torch.zeros(1)).indices == levels // 2


def test_codes_of_bsq_are_on_the_sphere() -> None:
    quantizer = BSQConfig(18).build()
    values, indices, _ = quantizer(torch.randn(50, 18) * 7)
    torch.testing.assert_close(values.norm(dim=-1), torch.ones(50))
    assert torch.equal(quantizer.bits(indices), values > 0)
    assert BSQConfig(60).build().values(torch.tensor([2**60 - 1])).min() > 0


def test_entropies_of_bits(double: None) -> None:
    """Against all codes written out: the sum over bits is exact for one vector; that of groups is an upper
    bound for all, and exact where one group holds all bits."""
    torch.manual_seed(0)
    z, temperature = torch.randn(40, 6) / 6, 0.5
    codes = BSQ(BSQConfig(6)).values(torch.arange(64)).double()
    chance = (2 * z @ codes.T / temperature).softmax(-1)
    one, all_ = (-(p * p.log()).sum(-1).mean() for p in (chance, chance.mean(0)))
    logits = 4 * 6**-0.5 / temperature * z
    torch.testing.assert_close(bit_entropies(logits, group=6), (one, all_), atol=1e-6, rtol=1e-6)
    bound = bit_entropies(logits, group=2)[1]
    assert all_ < bound < bit_entropies(logits, group=1)[1] < 6 * math.log(2)


def test_the_entropy_of_lfq_spreads_codes() -> None:
    """Most vectors choose one code at first, and all codes in the end."""
    quantizer = LFQConfig(4, temperature=1.0, commitment=0.0).build()
    z = (torch.randn(256, 4, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.5).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.05)
    before = quantizer.usage(quantizer(z).indices)
    for _ in range(60):
        optimizer.zero_grad()
        sum(quantizer(z).losses.values()).backward()
        optimizer.step()
    after = quantizer.usage(quantizer(z).indices)
    assert before["perplexity"] < 4 and after["usage"] == 1 and after["perplexity"] > 12


def test_a_codebook_follows_its_vectors() -> None:
    """Four clumps, four codes: each ends in the middle of one, and all are used alike."""
    draw = torch.Generator().manual_seed(0)
    middle = torch.tensor([[-3.0, -3.0], [-3.0, 3.0], [3.0, -3.0], [3.0, 3.0]])
    quantizer = VQConfig(2, 4).build()
    for _ in range(50):
        quantizer.measure(middle.repeat(16, 1) + 0.1 * torch.randn(64, 2, generator=draw))
    found = quantizer.codebook[quantizer.index(middle)]
    torch.testing.assert_close(found, middle, atol=0.1, rtol=0)
    usage = quantizer.usage(quantizer.index(middle.repeat(5, 1)))
    assert usage["usage"] == 1 and usage["dead"] == 0 and usage["perplexity"] == pytest.approx(4)


def test_dead_codes_begin_again() -> None:
    """Codes that nothing takes are moved to where vectors are; without restarts they stay dead."""
    z = torch.randn(512, 2, generator=torch.Generator().manual_seed(0))
    used = {}
    for restart in (0.0, 0.1):
        torch.manual_seed(0)
        quantizer = VQ(VQConfig(2, 32, decay=0.9, restart=restart))
        quantizer.share.fill_(1 / 32)
        quantizer.codebook[4:] += 50
        quantizer.total.copy_(quantizer.codebook / 32)
        for _ in range(60):
            quantizer.measure(z)
        used[restart] = quantizer.usage(quantizer.index(z))
    assert used[0.0]["dead"] == 28 and used[0.1]["dead"] == 0
    assert used[0.1]["perplexity"] > 4 * used[0.0]["perplexity"]


def test_measuring_is_deterministic_and_forward_changes_nothing() -> None:
    z, made = torch.randn(300, 3), []
    for _ in range(2):
        torch.manual_seed(1)
        quantizer = VQConfig(3, 20).build()
        for step in range(4):
            quantizer.measure(z[step:])
        made.append({name: tensor.clone() for name, tensor in quantizer.state_dict().items()})
        quantizer(z)
        assert all(torch.equal(made[-1][name], x) for name, x in quantizer.state_dict().items())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


def in_one_process(rank: int, rendezvous: str) -> None:
    """Measures what only this process has, and compares what came of it with the first."""
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    torch.manual_seed(0)
    quantizer = ResidualConfig(VQConfig(3, 16, decay=0.9), 2).build()
    torch.manual_seed(10 + rank)
    for _ in range(5):
        quantizer.measure(torch.randn(64, 3))
    for tensor in quantizer.buffers():
        first = tensor.clone()
        dist.broadcast(first, 0)
        assert torch.equal(tensor, first)
    dist.destroy_process_group()


def test_two_processes_have_one_codebook(tmp_path: Path) -> None:
    spawn(in_one_process, (str(tmp_path / "rendezvous"),), nprocs=2)


@torch.no_grad()
def test_stages_with_gains_converge() -> None:
    """Binary stages on Gaussian vectors: 4.4, 8.9, 12.4 and 14.9 dB after one to four, as with the best gain
    of each; without gains 1.3 to 5.5."""
    z = torch.randn(4096, 32, generator=torch.Generator().manual_seed(0))
    quantizer = ResidualConfig(BSQConfig(32), 4).build()
    quantizer.measure(z)
    indices = quantizer(z).indices
    for stages, expected in enumerate((4.4, 8.9, 12.4, 14.9), 1):
        error = (z - quantizer.values(indices[:, :stages])).square().mean()
        assert float(-10 * error.log10()) == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("kind", STAGED)
@torch.no_grad()
def test_fewer_stages_are_a_coarser_code(kind: str) -> None:
    torch.manual_seed(0)
    quantizer, z = STAGED[kind].build(), vectors(STAGED[kind])
    for _ in range(30):
        quantizer.measure(z)
    indices = quantizer(z).indices
    ends = list(accumulate(getattr(quantizer, "sizes", [1] * quantizer.stages)))
    errors = [(quantizer.values(indices[..., :end]) - z).square().mean() for end in ends]
    assert indices.shape[-1] == ends[-1] and sorted(errors, reverse=True) == errors
    assert errors[-1] < 0.8 * errors[0]


@torch.no_grad()
def test_scales_of_one_size_are_a_residual_quantizer() -> None:
    torch.manual_seed(0)
    scales = MultiScaleConfig(BSQConfig(6), ((4, 6),) * 3, filters=0).build()
    residual, z = ResidualConfig(BSQConfig(6), 3).build(), vectors(BSQConfig(6))
    scales.measure(z)
    residual.measure(z)
    torch.testing.assert_close(scales(z).values, residual(z).values)
    indices = scales(z).indices.unflatten(-1, (3, 4, 6)).movedim(-3, -1)
    assert torch.equal(indices, residual(z).indices)


def test_use_is_counted_for_each_codebook() -> None:
    quantizer = ResidualConfig(VQConfig(2, 4), 2).build()
    usage = quantizer.usage(torch.tensor([[0, 0], [1, 0], [0, 0], [1, 0]]))
    assert usage["usage"] == 3 / 8 and usage["dead"] == 5 and usage["perplexity"] == pytest.approx(2**0.5)


def test_what_is_no_code_is_refused() -> None:
    quantizer = VQConfig(2, 10).build()
    with pytest.raises(ValueError, match="index 10 is outside the vocabulary of 0 to 9"):
        quantizer.values(torch.tensor([3, 10]))
    with pytest.raises(ValueError, match="index -1 is outside"):
        quantizer.bits(torch.tensor([-1], dtype=torch.int8))
    with pytest.raises(ValueError, match=r"whole numbers, not torch.float32"):
        quantizer.values(torch.zeros(3))
    with pytest.raises(ValueError, match="4 bits here, not 5"):
        quantizer.from_bits(torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="index 15 is outside"):
        quantizer.from_bits(torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="vectors of 2 channels, not 3"):
        quantizer(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="1 to 3 stages has as many indices, not 4"):
        STAGED["residual-vq"].build().values(torch.zeros(2, 4, dtype=torch.long))
    scales = STAGED["scales-vq"].build()
    with pytest.raises(ValueError, match=r"\[1, 7, 31\] tokens together, and 8 are none of these"):
        scales.values(torch.zeros(2, 8, dtype=torch.long))
    with pytest.raises(ValueError, match="last scale has 4x6 latents, not 4x4"):
        scales(torch.zeros(2, 4, 4, 4))
    with pytest.raises(ValueError, match="have no tokens: take a codec with a quantizer"):
        UnquantizedConfig(3).build().values(torch.zeros(2, 0, dtype=torch.long))


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="3 levels or more"):
        FSQConfig((8, 2))
    with pytest.raises(ValueError, match="1 to 62 bits, not 64: take several residual stages"):
        BSQConfig(64)
    with pytest.raises(ValueError, match="from coarse to fine"):
        MultiScaleConfig(scales=((2, 2), (1, 4)))
    with pytest.raises(ValueError, match="4 convolutions are more than the 2 scales"):
        MultiScaleConfig(scales=((1, 1), (2, 4)))


def test_against_vector_quantize_pytorch() -> None:
    """The same indices and values as lucidrains' of FSQ and LFQ, and the same nearest codes."""
    theirs = pytest.importorskip("vector_quantize_pytorch")
    z = vectors(FSQConfig())
    for levels in ([8, 8, 8, 5, 5, 5], [4, 3, 6, 7, 8, 9]):
        ours = FSQConfig(tuple(levels)).build()(z)
        values, indices = theirs.FSQ(levels, channel_first=False)(z.flatten(0, -2)[None])
        assert (ours.indices.flatten() == indices[0]).double().mean() > 0.999
        torch.testing.assert_close(ours.values.flatten(0, -2), values[0], atol=1e-6, rtol=0)
    lfq = theirs.LFQ(codebook_size=64, dim=6, channel_first=False).eval()
    values, indices, _ = lfq(z.flatten(0, -2)[None])
    ours = LFQConfig(6).build()(z)
    assert torch.equal(ours.indices.flatten(), indices[0].long())
    torch.testing.assert_close(ours.values.flatten(0, -2), values[0])
    vq = VQConfig(6, 40).build()
    book = theirs.VectorQuantize(dim=6, codebook_size=40, rotation_trick=False).eval()
    book._codebook.embed.copy_(vq.codebook[None])
    assert torch.equal(book(z.flatten(0, -2)[None])[1][0], vq(z).indices.flatten())
