"""What a vocabulary costs: every measure against numbers worked out by hand, and the command end to end."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamwalk.cli import main
from dreamwalk.clip import batch
from dreamwalk.codecs import CodecConfig
from dreamwalk.codecs.codec import KLAutoencoder
from dreamwalk.codecs.kl_autoencoder import KLCodecConfig
from dreamwalk.codecs.perceptual import Perceptual
from dreamwalk.codecs.quantizers import BSQConfig, FSQConfig, LFQConfig, UnquantizedConfig
from dreamwalk.codecs.residual_quantizers import MultiScaleConfig, ResidualConfig, ResidualQuantizer
from dreamwalk.codecs.tokens import QuantizerConfig, TokenCodec, tokenized, tokens_tiny
from dreamwalk.codecs.vector_quantizer import VQConfig
from dreamwalk.data.shards import Shards
from dreamwalk.evaluation import matched_codecs
from dreamwalk.evaluation.codebook import EvaluateCodebook, drawn_windows, evaluate_codebook, scored
from dreamwalk.evaluation.codebook_page import codebook_page, report_tables
from dreamwalk.evaluation.codings import CodedVideo, Coding, KLCoding, TokenCoding, coding_of
from dreamwalk.evaluation.fidelity import to_bytes
from dreamwalk.evaluation.generation_gap import generation_gap
from dreamwalk.evaluation.matched_codecs import ExaminedCodec, differences, examined
from dreamwalk.evaluation.vocabulary_cost import SignalToNoise, drift_of, nats_a_pixel, rate_of, stage_use
from dreamwalk.systems.autoencode import Autoencode, AutoencodeConfig
from dreamwalk.systems.open import load
from dreamwalk.training.run import OptimConfig, Run
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json

INNER = tokens_tiny().codec
QUANTIZERS: dict[str, QuantizerConfig] = {
    "FSQ 256": FSQConfig((4, 4, 4, 4)),
    "BSQ 2^10": BSQConfig(10),
    "VQ 64": VQConfig(4, 64),
    "3 x LFQ 2^4": ResidualConfig(LFQConfig(4), 3),
    "2 scales of VQ 2^13": MultiScaleConfig(VQConfig(4, 2**13), ((1, 1), (2, 3)), 2),
}


def test_entropy_and_use_are_those_of_a_known_distribution() -> None:
    """Halves, quarters and eighths: 1.75 bits. The low bits are set with 3/8 and 1/4."""
    tokens = torch.tensor([3, 0, 0, 1, 0, 2, 1, 0]).repeat(3, 1)
    use = stage_use(tokens, LFQConfig(4).build())
    assert use.tokens == 24 and use.vocabulary == 16 and (use.usage, use.dead) == (0.25, 12)
    assert use.entropy == pytest.approx(1.75) and use.perplexity == pytest.approx(2**1.75)
    bit = lambda p: -p * math.log2(p) - (1 - p) * math.log2(1 - p)
    assert use.at_most == pytest.approx(bit(3 / 8) + bit(1 / 4))
    assert use.ranks == ((1, 0.5), (2, 0.25), (3, 0.125), (4, 0.125))


def test_signal_to_noise_is_that_of_known_quantizers() -> None:
    """+-1 +-0.1 against +-1: 1.01 over 0.01. A sign of a Gaussian with the best gain: 1 / (1 - 2/pi)."""
    z = torch.tensor([1.1, 0.9, -1.1, -0.9]).view(1, 4, 1, 1, 1).double()
    told = []
    for shift in (0.0, 7.0):  # a mean is no signal
        noise = SignalToNoise()
        for part, code in ((z[:, :1], 1), (z[:, 1:2], 1), (z[:, 2:], -1)):  # batches add up
            noise.add(part + shift, torch.full_like(part, code + shift))
        told.append(noise.decibels()["snr"])
    assert told == pytest.approx([10 * math.log10(1.01 / 0.01)] * 2)
    x = torch.randn(1, 1000, 2, 10, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = SignalToNoise()
    noise.add(x, x.sign())
    found = noise.decibels()
    assert found["gain"] == pytest.approx(-10 * math.log10(1 - 2 / math.pi), abs=0.02)  # 4.40
    assert found["snr"] == pytest.approx(-10 * math.log10(2 - 2 * math.sqrt(2 / math.pi)), abs=0.02)  # 3.93


def test_bits_per_pixel_are_those_of_the_literature() -> None:
    """64,000 codes for 4x8x8 pixels of 17x128x128: 0.073. Stages count each by its own entropy."""
    quantizer, tokens = FSQConfig().build(), torch.zeros(2, 5, 16, 16, dtype=torch.long)
    uses = {"all": stage_use(tokens, quantizer)}
    told = rate_of({"all": quantizer}, [tokens], uses=uses, dimensions=1280 * 6, pixels=17 * 128 * 128)
    assert told.tokens == 1280 and told.bits_a_pixel == pytest.approx(0.0734, abs=5e-5)
    assert told.bits_a_dimension == pytest.approx(math.log2(64000) / 6) and told.entropy_a_pixel == 0
    coarse, fine = torch.tensor([[0, 1]]), torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]])[:1]
    stages = {"one": LFQConfig(2).build(), "two": LFQConfig(2).build()}
    uses = {"one": stage_use(coarse, stages["one"]), "two": stage_use(fine, stages["two"])}
    told = rate_of(stages, [coarse, fine], uses=uses, dimensions=8, pixels=100)
    assert (told.tokens, told.bits, told.bits_a_dimension, told.bits_a_pixel) == (6, 12, 1.5, 0.12)
    assert told.entropy_a_pixel == pytest.approx((2 * 1 + 4 * 2) / 100)


class Shifted(KLAutoencoder):
    """A posterior of mean 2 and variance 1 everywhere."""

    def moments_of(self, video: Tensor) -> Tensor:
        b, t, _, h, w = video.shape
        return torch.cat([torch.full((b, t, 3, h, w), 2.0), torch.zeros(b, t, 3, h, w)], 2)

    def reconstruct(self, latents: Tensor) -> Tensor:
        return latents


def test_the_rate_of_a_posterior_is_its_divergence() -> None:
    """Half of 2^2: 2 nats for each latent number."""
    codec = Shifted(KLCodecConfig(channels=3))
    codec.stride = (1, 1, 1)
    codec.register_parameter("weight", torch.nn.Parameter(torch.ones(1)))
    coding = coding_of(codec)
    assert isinstance(coding, KLCoding) and coding.kind == "KL" and not coding.stages
    nats = coding.code(torch.zeros(2, 1, 3, 4, 5), torch.zeros(2, 1, 0)).nats
    assert nats is not None and nats.tolist() == [2 * 60, 2 * 60]
    assert nats_a_pixel(nats, 20) == pytest.approx(120 / math.log(2) / 20)


class Darkening(Coding):
    """Each decoding is two grey levels darker; one stage tells them, one is always 7, one goes to and fro."""

    def code(self, video: Tensor, actions: Tensor) -> CodedVideo:
        level = ((video[:, :, 0, 0, 0] + 1) * 127.5).round().long()
        return CodedVideo(video - 2 / 127.5, video, parts=(level, torch.full_like(level, 7), level // 2 % 2))


def test_drift_is_told_after_each_number_of_trips() -> None:
    calls: list[int] = []
    video = torch.zeros(2, 3, 3, 12, 12)
    told = drift_of(Darkening(), video, torch.zeros(2, 3, 0), trips=(1, 4), advance=lambda: calls.append(1))
    assert list(told.psnr) == [1, 4] and len(calls) == 4
    for trips in (1, 4):
        assert told.psnr[trips] == pytest.approx([20 * math.log10(255 / (2 * trips))] * 2, abs=1e-4)
    assert {trips: same.tolist() for trips, same in told.same.items()} == {1: [1 / 3] * 2, 4: [2 / 3] * 2}


def test_generation_is_parted_into_vocabulary_and_model() -> None:
    """Off by 1 grey level and by 4: 48.13 and 36.09 dB, and 12.04 between them."""
    truth = torch.full((2, 3, 3, 8, 8), 100, dtype=torch.uint8)
    generated = truth + torch.tensor([1, 2, 4], dtype=torch.uint8)[None, :, None, None, None]
    gap = generation_gap(truth, truth + 1, generated)
    assert gap.reconstructed == (48.131,) * 3 and gap.generated == (48.131, 42.11, 36.09)
    assert gap.modelling == pytest.approx((0, 6.021, 12.041), abs=2e-3)
    with pytest.raises(ValueError, match="are of one shape"):
        generation_gap(truth, truth[:, 1:], truth)


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_a_coding_is_what_the_codec_does(kind: str) -> None:
    torch.manual_seed(0)
    inner = replace(INNER, widths=(20, 40)) if "10" in kind else INNER
    codec = tokenized(inner, QUANTIZERS[kind]).build().eval()
    assert isinstance(codec, TokenCodec) and codec.spread is not None
    codec.spread.mean.fill_(0.3)
    codec.spread.power.fill_(0.5)
    coding, video, actions = coding_of(codec), torch.rand(2, 5, 3, 8, 12) * 2 - 1, torch.zeros(2, 5, 0)
    assert isinstance(coding, TokenCoding)
    coded, bypassed = coding.code(video, actions), coding.bypassed(video, actions)
    assert coding.kind == kind and len(coding.stages) == len(coded.parts)
    assert torch.equal(coded.values, codec.encode(video)) and coded.points is not None
    assert torch.equal(codec.from_tokens(joined(codec, coded.parts)), coded.values)
    assert coded.points.shape == coded.values.shape and bypassed is not None
    for film, latents in ((coded.restored, coded.values), (bypassed, coded.points)):
        assert torch.allclose(film, codec.decode(latents, 5).clamp(-1, 1), atol=1e-5)
    assert torch.equal(codec.quantizer.index(coded.points.movedim(2, -1)), codec.tokens(video))


def joined(codec: TokenCodec, parts: tuple[Tensor, ...]) -> Tensor:
    quantizer = codec.quantizer
    return quantizer.joined(list(parts)) if isinstance(quantizer, ResidualQuantizer) else parts[0]


def test_a_codec_without_a_quantizer_has_no_vocabulary() -> None:
    coding = coding_of(tokenized(INNER, UnquantizedConfig(4)).build())
    assert coding is not None and coding.kind == "none" and coding.sizes == INNER and not coding.stages
    video, actions = torch.zeros(1, 1, 3, 8, 8), torch.zeros(1, 1, 0)
    coded = coding.code(video, actions)
    assert coded.parts == () and coded.points is None and coding.bypassed(video, actions) is None


def saved(path: Path, codec: CodecConfig, *, steps: int = 30, lr: float = 1e-3) -> Path:
    """A weight file as training writes it."""
    config = AutoencodeConfig(codec=codec)
    torch.manual_seed(0)
    system = config.build()
    if isinstance(system.codec, TokenCodec):
        system.codec.quantizer.measure(torch.randn(64, system.codec.channels))
    run = Run("autoencode.tokens", config, data="data/toy", steps=steps, optim=OptimConfig(lr=lr))
    metadata = {"system": "autoencode", "config": to_json(config), "run": to_json(run), "step": steps}
    path.parent.mkdir(parents=True, exist_ok=True)
    files.save(path, system.state_dict(), metadata=metadata)
    return path


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three matched ones, one trained for longer, and one with more channels of depth."""
    folder = tmp_path_factory.mktemp("codecs")
    saved(folder / "fsq" / "weights.safetensors", tokens_tiny())
    saved(folder / "kl.safetensors", INNER)
    saved(folder / "none.safetensors", tokenized(INNER, UnquantizedConfig(8)))
    saved(folder / "long.safetensors", tokenized(INNER, BSQConfig(8)), steps=60, lr=3e-4)
    return folder


def facts(path: Path) -> ExaminedCodec:
    return examined(load(path), str(path))


def test_codecs_are_matched_but_for_their_middle(family: Path) -> None:
    one = facts(family / "fsq")
    assert one.steps == 30 and one.label == "FSQ 256" and not one.continuous
    for twin in ("kl", "none"):
        assert differences(one, facts(family / f"{twin}.safetensors")) == {}
    longer = facts(family / "long.safetensors")
    assert differences(one, longer) == {"run.optim.lr": (1e-3, 3e-4), "steps": (30, 60)}
    other = replace(one, facts=one.facts | {"codec.kind": "TAEConfig", "codec.patch": 9})
    assert differences(one, other) == {"codec.kind": ("ShuffleVAEConfig", "TAEConfig")}
    wide = replace(one, facts=one.facts | {"codec.widths": [32, 32]})
    assert differences(one, wide) == {"codec.widths": ([16, 32], [32, 32])}


def test_the_command_writes_a_page_of_its_own(
    family: Path, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twins = [str(family / f"{name}.safetensors") for name in ("kl", "none", "long")]
    flags = ["--data", str(toy_data), "--clips", "4", "--frames", "5", "--drifting", "2", "--at-once", "3"]
    flags += ["--trips", "1", "2", "--out", str(tmp_path)]
    main(["evaluate", str(family / "fsq"), "--report", "codebook", *flags, "--matched", *twins])
    report, printed = json.loads((tmp_path / "report.json").read_text()), capsys.readouterr().out
    rows = report["codecs"]
    assert list(rows) == ["FSQ 256", "KL", "none", "BSQ 2^8"] and report["clips"] == 4
    fsq = rows["FSQ 256"]
    assert fsq["rate"]["tokens"] == 3 * 64 and fsq["rate"]["bits_a_pixel"] == 3 * 64 * 8 / (5 * 32 * 32)
    assert fsq["use"]["all"]["tokens"] == 4 * 3 * 64 and fsq["latents"]["bound"] == pytest.approx(12.0412)
    assert fsq["gap to"] == rows["none"]["gap to"] == "KL" and "gap" not in rows["KL"]
    assert fsq["gap"]["psnr"][0] == pytest.approx(fsq["psnr"][0] - rows["KL"]["psnr"][0], abs=2e-4)
    assert fsq["bypass gap"]["ssim"][0] == pytest.approx(fsq["bypass"]["ssim"][0] - fsq["ssim"][0], abs=2e-4)
    assert set(fsq["drift"]) == {"1", "2"} and 0 <= fsq["drift"]["2"]["same"][0] <= 1
    assert "same" not in rows["KL"]["drift"]["1"] and rows["KL"]["rate"]["kl_a_pixel"] > 0
    assert rows["BSQ 2^8"]["differs"] == {"run.optim.lr": [1e-3, 3e-4], "steps": [30, 60]}
    assert rows["none"]["differs"] == {} and rows["none"]["steps"] == 30
    told = " ".join(report["notes"])
    assert "fewer than 10,000 tokens (768)" in told and "BSQ 2^8 is not matched to FSQ 256" in told
    assert "trained on codes" in told and "seed 0" in printed and "steps of training: FSQ 256 30" in printed
    page = (tmp_path / "codebook.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "<script" not in page
    for title, head, lines in report_tables(report):
        assert title in printed and title in page and all(len(line) == len(head) for line in lines)
    assert page.count("data:image/svg") == 5 and page.count("data:image/png") == 4 * 5
    assert (tmp_path / "sheet.png").is_file()


def test_reconstruction_is_measured_against_the_windows(family: Path, toy_data: Path, tmp_path: Path) -> None:
    """The same PSNR as from the frames themselves; and the same report twice."""
    system = load(family / "fsq")
    assert isinstance(system, Autoencode)
    asked = EvaluateCodebook(data=str(toy_data), out=tmp_path, clips=3, frames=5, trips=(1,), seed=4)
    report = evaluate_codebook(system, asked, name="x")
    video = batch(drawn_windows(Shards(toy_data), asked)).video
    assert video.shape == (3, 5, 3, 32, 32) and video.dtype == torch.uint8
    with torch.no_grad():
        again = to_bytes(system.codec.decode(system.codec.encode(video.float() / 127.5 - 1)))
    error = (again.double() - video.double()).square().mean((2, 3, 4))
    expected = float((10 * torch.log10(255**2 / error)).mean())
    assert report["codecs"]["FSQ 256"]["psnr"][0] == pytest.approx(expected, abs=1e-3)
    assert "No codec of continuous latents" in " ".join(report["notes"])
    first = (tmp_path / "codebook.html").read_text()
    assert evaluate_codebook(system, asked, name="x")["codecs"] == report["codecs"]
    assert (tmp_path / "codebook.html").read_text() == first
    gap = generation_gap(video, again, video.flip(0))
    shown = report | {"generation": gap.told()}
    assert "Vocabulary and model" in codebook_page(shown, []) and "Vocabulary and model" not in first
    other = batch(drawn_windows(Shards(toy_data), replace(asked, seed=5))).video
    assert not torch.equal(video, other)


class FirstGiven(TokenCoding):
    """The first frame comes back as it is, and its latent is not coded."""

    given = 1

    def code(self, video: Tensor, actions: Tensor) -> CodedVideo:
        coded = super().code(video, actions)
        restored = torch.cat([video[:, :1], coded.restored[:, 1:]], 1)
        return CodedVideo(restored, coded.values[:, 1:], parts=tuple(part[:, 1:] for part in coded.parts))


def test_frames_that_are_given_do_not_count(
    family: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = load(family / "fsq")
    assert isinstance(system, Autoencode) and isinstance(system.codec, TokenCodec)
    asked = EvaluateCodebook(data=str(toy_data), out=tmp_path, clips=2, frames=5, trips=(1,))
    plain = evaluate_codebook(system, asked, name="x")["codecs"]["FSQ 256"]
    monkeypatch.setattr(matched_codecs, "coding_of", lambda codec: FirstGiven(codec))
    report = evaluate_codebook(system, asked, name="x")
    row = report["codecs"]["FSQ 256"]
    assert report["skipped"] == 1 and any("1 of each clip" in note for note in report["notes"])
    assert row["rate"]["tokens"] == 2 * 64 and row["rate"]["bits_a_pixel"] == 2 * 64 * 8 / (4 * 32 * 32)
    assert abs(row["psnr"][0] - plain["psnr"][0]) < 1 and row["psnr"] != plain["psnr"]  # no frame of 60 dB
    assert row["drift"]["1"]["psnr"] == row["psnr"] and "latents" not in row


def test_a_perceptual_distance_is_told_where_there_is_one() -> None:
    torch.manual_seed(0)
    distance, video = Perceptual((2, 2, 2, 2, 2)), torch.randint(256, (3, 3, 3, 16, 16)).byte()
    told = scored(video.roll(1, 0), video, distance)["lpips"]
    direct = distance(*(x.float() / 127.5 - 1 for x in (video.roll(1, 0), video)))
    assert told.shape == (3,) and told.mean() == pytest.approx(float(direct), rel=1e-4)
    assert len(set(told.tolist())) == 3
    assert scored(video, video, distance)["lpips"].tolist() == [0, 0, 0]
    assert "lpips" not in scored(video, video, None)


REFUSED = {
    "no quantizer": (["none.safetensors"], "has no quantizer"),
    "continuous": (["kl.safetensors"], "has no quantizer"),
    "no codec": (["inverse.doom"], "of the system inverse, which has no codec"),
    "matched to no codec": (
        ["fsq", "--matched", "inverse.doom"],
        "of the system inverse, which has no codec",
    ),
    "twice the same": (["fsq", "--matched", "fsq"], "names the same weights twice"),
    "frames that do not divide": (["fsq", "--frames", "4"], "4 frames do not divide"),
    "one clip": (["fsq", "--clips", "1"], "`--clips` is 2 or more"),
    "walks that are too short": (["fsq", "--frames", "17"], "no walk of"),
    "no trips": (["fsq", "--trips", "0"], "are 1 or more"),
    "no weights": (["nowhere"], "no weights called 'nowhere'"),
    "weights alone": (["fsq", "--report", "walks"], "dreams nothing to look at"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_examined_is_refused(
    case: str,
    family: Path,
    toy_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (name, *flags), sentence = REFUSED[case]
    monkeypatch.chdir(family)
    asked = [] if "--report" in flags else ["--report", "codebook", "--frames", "5"]
    with pytest.raises(SystemExit):
        main(["evaluate", name, *asked, *flags, "--data", str(toy_data), "--out", str(tmp_path)])
    assert sentence in capsys.readouterr().err
