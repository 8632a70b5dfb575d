"""The bank of frames: what goes in comes out, from RAM, from disk, from a copy and from a file."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from dreamwalk.errors import UserError
from dreamwalk.memory.bank import FrameBank, Unit, Units
from dreamwalk.memory.retention import BankBudget

SIZE, SHAPE = (48, 64), (4, 6, 8)
BYTES = 4 * 6 * 8 * 2


def unit(time: int, *, depth: bool = True) -> Unit:
    chance = torch.Generator().manual_seed(time)
    pose = torch.eye(4)
    pose[:3, 3] = 200 * torch.rand(3, generator=chance)
    latent = torch.randn(SHAPE, generator=chance, dtype=torch.bfloat16)
    action = torch.randn(5, generator=chance)
    intrinsics = torch.tensor([[32.0, 0, 32], [0, 32, 24 + time], [0, 0, 1]])
    grid = 100 * torch.rand(3, 4, generator=chance) if depth else None
    return Unit(latent, action, pose, intrinsics, time, dreamed=time % 3 > 0, depth=grid)


def filled(count: int = 100, *, budget: BankBudget | None = None) -> FrameBank:
    bank = FrameBank(budget, size=SIZE)
    for time in range(count):
        bank.write(unit(time, depth=time >= 10))
    return bank


def contents(bank: FrameBank) -> Units:
    return bank.units(torch.arange(len(bank)))


def same(a: FrameBank, b: FrameBank) -> bool:
    one, two = contents(a), contents(b)
    names = [name for name in one.__dataclass_fields__ if getattr(one, name) is not None]
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in names)


@contextmanager
def no_room_above(size: int) -> Iterator[None]:
    """The system lets no file grow larger: what a full disk does to one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_written_is_found() -> None:
    bank = filled()
    found, cameras = bank.units(torch.tensor([70, 5, 70])), bank.cameras()
    for i, time in enumerate((70, 5, 70)):
        given = unit(time, depth=time >= 10)
        for name in ("latent", "action", "pose", "intrinsics"):
            assert torch.equal(getattr(found, name)[i], getattr(given, name))
        assert found.dreamed[i] == given.dreamed and found.time[i] == time
    assert found.depth is not None and torch.equal(found.depth[0], unit(70).depth)
    assert not found.depth[1].any()  # there was none
    assert len(bank) == len(cameras) == 100 and cameras.size == SIZE
    assert torch.equal(cameras.pose[70], found.pose[0]) and torch.equal(cameras.time, torch.arange(100))


def test_an_empty_bank_is_one_too(tmp_path: Path) -> None:
    bank = FrameBank(size=SIZE)
    bank.clone().save(tmp_path / "a.bank")
    bank = FrameBank.open(tmp_path / "a.bank", device="cpu", shape=SHAPE)
    assert len(bank) == len(bank.cameras()) == 0 and len(bank.units(torch.arange(0)).latent) == 0
    bank.write(unit(0))
    assert len(bank) == 1 and bank.shape == SHAPE


def test_from_disk_as_from_memory() -> None:
    """Twelve latents fit; what was used last is not read again."""
    small = filled(budget=BankBudget(memory_bytes=12 * BYTES))
    assert same(small, filled()) and small._store.resident <= 12 * BYTES
    latents = [small._store.get(small._latents[i]) for i in (3, 50)]
    for i in range(60, 70):
        small._store.get(small._latents[i])
    again = [small._store.get(small._latents[i]) for i in (3, 50)]
    assert all(a is b for a, b in zip(latents, again, strict=True))
    none = filled(budget=BankBudget(memory_bytes=0))
    assert same(none, small) and none._store.resident == 0


def test_a_bounded_bank_takes_no_more_room_on_disk() -> None:
    """Places in the file are used again, but not while a copy needs them."""
    bank = filled(40, budget=BankBudget(frames=8, memory_bytes=0, policy="fifo"))
    assert bank._store._rows <= 9
    copy = bank.clone()
    before = contents(copy)
    for time in range(40, 60):
        bank.write(unit(time))
    assert torch.equal(contents(copy).latent, before.latent) and bank._store._rows <= 18
    assert sorted(contents(bank).time.tolist()) == [0, *range(53, 60)]


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_copies_do_not_know_of_one_another(memory: int) -> None:
    bank = filled(70, budget=BankBudget(frames=70, memory_bytes=memory))
    copy, other = bank.clone(), bank.to("cpu")
    for time in range(70, 80):
        bank.write(unit(time))
        other.write(unit(100 + time))
    assert same(copy, filled(70)) and len(copy) == 70
    for time in range(70, 80):
        copy.write(unit(time))
    assert same(copy, bank) and not same(copy, other)


@pytest.mark.parametrize("policy", ["fifo", "uniform", "k-center", "co-visibility", "rarity", "version"])
def test_a_saved_bank_goes_on_as_the_same(policy: str, tmp_path: Path) -> None:
    budget = BankBudget(12, policy, memory_bytes=5 * BYTES, place=50, radius=200)  # type: ignore[arg-type]
    bank = filled(40, budget=budget)
    bank.save(tmp_path / "a.bank")
    bank.save(tmp_path / "a.bank")
    opened = FrameBank.open(tmp_path / "a.bank", device="cpu", shape=SHAPE)
    assert same(opened, bank) and opened.budget == bank.budget and opened.size == SIZE
    assert opened.cameras().pose.dtype == torch.float32 and contents(opened).latent.dtype == torch.bfloat16
    for time in range(40, 80):
        bank.write(unit(time))
        opened.write(unit(time))
    assert same(opened, bank)


def test_it_may_be_written_to_in_and_out_of_inference_mode(tmp_path: Path) -> None:
    budget = BankBudget(12, memory_bytes=5 * BYTES)
    with torch.inference_mode():
        bank = filled(20, budget=budget)
        bank.save(tmp_path / "a.bank")
        copies = [bank.clone(), FrameBank.open(tmp_path / "a.bank", device="cpu"), bank]
    for copy in copies:
        for time in range(20, 30):
            copy.write(unit(time))
        assert same(copy, filled(30, budget=budget))


def test_a_full_disk_is_one_sentence_and_the_bank_is_as_it_was() -> None:
    bank = filled(20, budget=BankBudget(memory_bytes=4 * BYTES))
    with no_room_above(25 * BYTES + 100):
        for time in range(20, 25):
            bank.write(unit(time))
        for _ in range(2):
            with pytest.raises(UserError, match=r"cannot be written .* free some space"):
                bank.write(unit(25))
        assert len(bank) == 25 and torch.equal(bank.units(torch.arange(25)).latent[3], unit(3).latent)
    bank.write(unit(25))
    assert torch.equal(contents(bank).latent, contents(filled(26)).latent)


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    bank = filled(20)
    bank.save(tmp_path / "a.bank")
    more = filled(60)
    with no_room_above(40 * BYTES), pytest.raises(UserError, match=r"a\.bank' cannot be written"):
        more.save(tmp_path / "a.bank")
    assert same(FrameBank.open(tmp_path / "a.bank", device="cpu"), bank)
    assert [path.name for path in tmp_path.iterdir()] == ["a.bank"]


def test_a_broken_or_foreign_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.bank"
    filled(12, budget=BankBudget(20)).save(path)
    whole = path.read_bytes()
    broken = [whole[:-100], whole[:50], b"", safetensors.torch.save({"x": torch.zeros(1)})]
    broken += [whole.replace(b'"pose"', b'"post"'), whole.replace(b'\\"frames\\": 20', b'\\"frames\\": 10')]
    broken += [whole.replace(b'"I64"', b'"F64"'), whole.replace(b'\\"size\\": [48', b'\\"size\\": [-8')]
    for place in (len(whole) // 2, len(whole) - 1, len(whole) - 12 * BYTES - 3):
        broken.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for data in broken:
        assert data != whole
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"a\.bank"):
            FrameBank.open(path, device="cpu")
    with pytest.raises(UserError, match="cannot be read"):
        FrameBank.open(tmp_path / "none.bank", device="cpu")


def test_frames_of_another_codec_are_one_sentence(tmp_path: Path) -> None:
    bank = filled(12)
    for other in (
        replace(unit(12), latent=torch.zeros(4, 6, 9)),
        replace(unit(12), action=torch.zeros(6)),
        replace(unit(12), depth=torch.zeros(3, 5)),
    ):
        with pytest.raises(UserError, match="does not fit this bank"):
            bank.write(other)
    assert same(bank, filled(12))
    bank.write(replace(unit(12), latent=unit(12).latent.double()))  # another type is no other codec
    assert same(bank, filled(13))
    bank.save(tmp_path / "a.bank")
    with pytest.raises(UserError, match=r"a\.bank' holds latents of shape \(4, 6, 8\)"):
        FrameBank.open(tmp_path / "a.bank", device="cpu", shape=(16, 6, 8))


def test_a_budget_of_one_frame_is_one_sentence() -> None:
    with pytest.raises(UserError, match="a bank of 1 frames has no room"):
        BankBudget(1)
