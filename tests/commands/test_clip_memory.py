"""What has no room is refused in one sentence, before anything is loaded; what has some is dreamt as ever."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamwalk.cli import main
from dreamwalk.commands import clip_memory as room
from dreamwalk.commands.clip_memory import placed, require_room, shortage_told
from dreamwalk.commands.sample import SampleClip
from dreamwalk.conditions.byte_encoder import ByteEncoder
from dreamwalk.conditions.frozen import FrozenTextEncoder
from dreamwalk.conditions.hunyuan import HunyuanTextConfig
from dreamwalk.device import budget
from dreamwalk.device.budget import MemoryPlan
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.systems import moviegen
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.moviegen import Moviegen, MoviegenConfig
from dreamwalk.systems.open import load, load_mmap, meta_system
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json

CPU = torch.device("cpu")
ASKED = SampleClip(Path("o.mp4"), ClipRequest(("walk ahead",), steps=1), prompt="walk ahead")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    system = Moviegen(moviegen.tiny())
    for p in system.backbone.parameters():
        p.data += 0.05 * torch.randn_like(p)
    path = tmp_path_factory.mktemp("room") / "m.safetensors"
    files.save(path, system.state_dict(), metadata={"system": "moviegen", "config": to_json(system.config)})
    return path


PLANS = {0: MemoryPlan(weights=100, step=10, decode=90), 256: MemoryPlan(weights=100, step=10, decode=30)}
"""By the side of tiles."""


@pytest.mark.parametrize(
    ("asked", "card", "host", "advice"),
    [
        (ASKED, 190, 0, ""),
        (ASKED, 189, 0, "add `--tile 256`"),
        (replace(ASKED, tile=256), 130, 0, ""),
        (ASKED, 130, 0, "add `--tile 256`"),
        (ASKED, 129, 0, "fewer `--frames` or a smaller `--size`, with `--offload blocks8 --tile 256`"),
        (replace(ASKED, tile=256), 129, 80, "add `--offload blocks`"),
        (replace(ASKED, tile=256), 129, 40, "add `--offload blocks8`"),
        (ASKED, 129, 80, "add `--offload blocks --tile 256`"),
        (ASKED, 70, 40, "add `--offload blocks8 --tile 256`"),
        (replace(ASKED, offload="blocks"), 130, 40, "add `--offload blocks8`"),
        (replace(ASKED, offload="blocks8", tile=256), 50, 99, "fewer `--frames` or a smaller `--size`"),
    ],
)
def test_it_is_said_what_gives_room(
    monkeypatch: pytest.MonkeyPatch, asked: SampleClip, card: int, host: int, advice: str
) -> None:
    """Of 100 bytes 80 are blocks, of which 60 can be away."""

    def kept(plan: MemoryPlan, system: Moviegen, way: str) -> MemoryPlan:
        bytes_away = {"none": 0, "blocks": 80, "blocks8": 40}[way]
        return replace(plan, weights=100 - 60 * (way != "none"), host=bytes_away)

    monkeypatch.setattr(room, "whole_plan", lambda asked, system: PLANS[asked.tile])
    monkeypatch.setattr(room, "kept", kept)
    monkeypatch.setattr(room, "free_bytes", lambda device: card if device.type == "cuda" else host)
    said = ""
    try:
        require_room(asked, None, torch.device("cuda"))
    except ValueError as error:
        said = str(error)
    assert said.partition("free: ")[2] == advice or (advice and said.endswith(": ask for " + advice))


def test_where_host_memory_is_the_device_both_count(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = MemoryPlan(weights=100, step=10, decode=5, host=50)
    for free, short in ((160, False), (159, True), (None, False)):
        monkeypatch.setattr(room, "free_bytes", lambda device, free=free: free)
        assert bool(room.lacking(plan, CPU)) == short


def on_meta(config: MoviegenConfig) -> Moviegen:
    with torch.device("meta"):
        return Moviegen(config)


def test_only_large_clips_show_their_plan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for limit, shown in ((room.LARGE, False), (1000, True)):
        monkeypatch.setattr(room, "LARGE", limit)
        require_room(ASKED, on_meta(moviegen.tiny()), CPU)
        assert ("peak" in capsys.readouterr().err) == shown


@pytest.mark.parametrize("limit", ["", "max\n", "1048576000\n"])
def test_what_is_free_is_known_here(limit: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With or without a limit of the container, or a file that says that there is none."""
    file = tmp_path / "memory.max"
    monkeypatch.setattr(budget, "CGROUP", file)
    if limit:
        file.write_text(limit)
    free = budget.free_bytes(CPU)
    assert free is None or 2**20 < free < 2**50
    assert limit[0:1] != "1" or (free is not None and free <= 1048576000)


def test_a_clip_without_room_is_refused_and_nothing_loaded(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda device: 1000)
    monkeypatch.setattr("dreamwalk.systems.open.load_mmap", lambda name: pytest.fail("opened"))
    words = ["sample", str(saved), "--prompt", "walk", "--device", "cpu", "--out", str(tmp_path / "o.mp4")]
    with pytest.raises(SystemExit) as stop:
        main(words)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.startswith("dreamwalk: this clip takes 0.0 GiB of memory")
    assert said.count("\n") == 1
    with pytest.raises(SystemExit):
        main([*words, "--size", "32", "30"])
    assert "the nearest size is 32x32" in capsys.readouterr().err


@pytest.mark.parametrize("offload", ["none", "blocks", "blocks8"])
def test_blocks_that_visit_dream_the_same(saved: Path, offload: room.Offloading) -> None:
    expected = load(saved).sample_video(ASKED.request)
    system = placed(replace(ASKED, offload=offload), load_mmap(saved), CPU)
    files.align_(system)
    there = sum(p.numel() for p in system.blocks.parameters())
    assert (there == 0) == (offload != "none")
    dreamt = system.sample_video(ASKED.request)
    if offload == "blocks8":
        assert 0 < (dreamt - expected).square().mean() < 0.01 * expected.square().mean()
    else:
        torch.testing.assert_close(dreamt, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_is_one_sentence(
    saved: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(encoder: ByteEncoder, texts: list[str], images: Tensor | None) -> None:
        raise error

    monkeypatch.setattr(ByteEncoder, "forward", fails)
    with pytest.raises(SystemExit) as stop:
        main(["sample", str(saved), "--prompt", "walk", "--device", "cpu", "--out", "o.mp4", "--tile", "64"])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2
    assert said.endswith(
        "memory ran out: ask for fewer `--frames` or a smaller `--size`, or add `--offload blocks8`"
    )


def test_a_real_allocator_says_so_too() -> None:
    with pytest.raises(ValueError, match="memory ran out"), shortage_told(ASKED):
        torch.empty(2**62, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="tensor size"), shortage_told(ASKED):
        torch.zeros(2) @ torch.zeros(3)


class Counted:
    """An encoder that says how often it was asked, and opened."""

    opened = 0

    def __init__(self) -> None:
        Counted.opened += 1

    def check(self, text: str) -> None:
        pass

    def encode(self, texts: list[str], images: Tensor | None) -> TextEmbedding:
        return TextEmbedding(torch.full((len(texts), 2, 16), float(len(texts[0]))), None, None)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[FrozenTextEncoder]:
    monkeypatch.setattr(HunyuanTextConfig, "open", lambda config, device: Counted())
    Counted.opened = 0
    yield HunyuanTextConfig("encoders").build()


@pytest.mark.parametrize(("guidance", "read"), [(1.0, ["walk ahead"]), (4.0, ["walk ahead", "ugly"])])
def test_published_encoders_read_once_and_are_closed(
    encoder: FrozenTextEncoder, guidance: float, read: list[str]
) -> None:
    system = Moviegen(moviegen.tiny())
    system.text_encoder = encoder
    request = replace(ASKED.request, negative="ugly", guidance=guidance)
    asked = replace(ASKED, request=request, offload="blocks")
    system = placed(asked, system, CPU)
    assert "model" not in vars(encoder)
    system.sample_video(request)
    assert Counted.opened == 1 and "model" not in vars(encoder)
    assert [float(encoder([text]).tokens[0, 0, 0]) for text in read] == [len(text) for text in read]
    assert encoder(["another text"]).tokens.shape == (1, 2, 16) and Counted.opened == 2


def test_encoders_weigh_what_their_files_do(tmp_path: Path) -> None:
    assert HunyuanTextConfig("hf://owner/name").build().nbytes == 0
    for folder, size in (("text_encoder", 500), ("text_encoder_2", 70), ("vae", 9)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.safetensors").write_bytes(bytes(size))
    assert HunyuanTextConfig(str(tmp_path)).build().nbytes == 570


def test_an_outline_is_what_is_opened(saved: Path) -> None:
    light, system = meta_system(saved), load(saved)
    assert {name: (t.shape, t.dtype) for name, t in light.state_dict().items()} == {
        name: (t.shape, t.dtype) for name, t in system.state_dict().items()
    }
    assert all(t.is_meta for t in light.parameters())


def test_what_is_opened_is_whole_and_the_same_to_the_last_bit(saved: Path) -> None:
    """As when a system was made first and filled then; and it is written to without a change of the file."""
    filled = Moviegen(moviegen.tiny())
    files.fill(filled, files.read(saved)[0], source="the file")
    system = load(saved)
    assert not any(tensor.is_meta for tensor in (*system.parameters(), *system.buffers()))
    assert [p.requires_grad for p in system.parameters()] == [p.requires_grad for p in filled.parameters()]
    assert torch.equal(system.sample_video(ASKED.request), filled.eval().sample_video(ASKED.request))
    for p in load_mmap(saved).parameters():
        p.data += 1
    assert all(map(torch.equal, load(saved).parameters(), filled.parameters()))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts pages as Linux does")
def test_weights_stay_in_their_file_until_they_are_used(tmp_path: Path) -> None:
    def held() -> int:
        """Bytes in memory that are of no file."""
        resident, shared = map(int, Path("/proc/self/statm").read_text().split()[1:3])
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")

    small = moviegen.tiny()
    backbone = replace(small.backbone, width=512, heads=16, axes=(8, 12, 12))
    wide = replace(small, backbone=backbone, precision="bfloat16")
    tensors = {n: torch.zeros(t.shape, dtype=t.dtype) for n, t in on_meta(wide).state_dict().items()}
    size = sum(tensor.nbytes for tensor in tensors.values())
    files.save(tmp_path / "m.safetensors", tensors, metadata={"system": "moviegen", "config": to_json(wide)})
    before = held()
    opened = load_mmap(tmp_path / "m.safetensors")
    assert held() - before < size / 4 and size > 2**24
    loose = sum(part.nbytes for part in opened.parameters() if part.data_ptr() % files.ALIGNED)
    files.align_(opened)  # how much is not aligned, the length of the file's metadata decides
    assert 0.8 * loose < held() - before < 1.5 * size
