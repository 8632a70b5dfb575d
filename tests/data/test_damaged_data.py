"""Folders of clips and of latents that lie: one sentence, soon and in little memory, or they are right."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import GONE, Verdicts, bounded_memory, changed, damaged
from toy import Toy

from dreamwalk.clip import Clip
from dreamwalk.data.folders import Bucket, open_captioned
from dreamwalk.data.latents import HEADER, INDEX, Latents, cached_latents
from dreamwalk.data.shards import MANIFEST, Shards, find_faults
from dreamwalk.data.writing import write_clips
from dreamwalk.errors import UserError

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts pages as Linux does")
TAR = "000000.tar"
FRAMES, SIDE, ACTIONS = 4, 32, 7
ENTRY = ("shards", 0, "clips", 0)


@dataclass(frozen=True)
class Deep(Toy):
    """The toy, with depth."""

    def clips(self, indices: range) -> Iterator[Clip]:
        for clip in super().clips(indices):
            yield replace(clip, depth=np.ones(clip.video.shape[:3], np.float32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_clips(Deep(clip_frames=FRAMES), 2, tmp_path / "clips")


def manifest_of(folder: Path) -> Any:
    return json.loads((folder / MANIFEST).read_text())


def read_all(folder: Path) -> None:
    """All that is read of a folder, and it is as the schema says."""
    data = Shards(folder)
    for index in range(len(data)):
        clip = data.clip(index)
        assert clip.video.shape == (FRAMES, SIDE, SIDE, 3) and clip.actions.shape == (FRAMES, ACTIONS)
        assert data.window(index, 1, 2).video.shape == (2, SIDE, SIDE, 3)
        assert data.walked(index)[2].shape == (FRAMES, ACTIONS)
    find_faults(folder)


def test_every_field_of_a_manifest(folder: Path) -> None:
    manifest, verdicts = manifest_of(folder), Verdicts()
    with bounded_memory():
        for label, wrong in damaged(manifest, values=8):
            (folder / MANIFEST).write_text(json.dumps(wrong))
            verdicts.read(label, lambda: read_all(folder))
    assert not verdicts.faults
    assert len(verdicts.refused) > 150
    assert not [sentence for sentence in verdicts.refused.values() if str(folder) not in sentence]
    offset = ".".join(map(str, ENTRY)) + ".offset = -1"
    field = "shards[0].clips[0].offset must be a whole number from 0 to"
    assert field in verdicts.refused[offset] and MANIFEST in verdicts.refused[offset]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b'{"format": NaN}', b"3"]
)
def test_a_manifest_that_is_no_json_or_another_kind(folder: Path, data: bytes) -> None:
    (folder / MANIFEST).write_bytes(data)
    with pytest.raises(UserError, match=r"manifest\.json'.* (is|must be) "):
        Shards(folder)


def test_a_shard_lies_in_its_folder(folder: Path, tmp_path: Path) -> None:
    os.rename(folder / TAR, tmp_path / TAR)
    manifest = manifest_of(folder)
    for wrong in (f"../{TAR}", str(tmp_path / TAR), f"x/../../{TAR}", "", "..", "a\0b"):
        (folder / MANIFEST).write_text(json.dumps(changed(manifest, ("shards", 0, "file"), wrong)))
        for read in (Shards, find_faults):
            with pytest.raises(UserError, match="a shard's file must be a path within its own folder, got"):
                read(folder)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    (folder / TAR).symlink_to(tmp_path / TAR)
    with pytest.raises(UserError, match="a shard's file leads out of"):
        Shards(folder)
    (folder / TAR).unlink()
    (folder / TAR).mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        Shards(folder).clip(0)


def test_bytes_that_changed_are_seen(folder: Path) -> None:
    whole = (folder / TAR).read_bytes()
    entry = manifest_of(folder)["shards"][0]["clips"][0]
    for at in (entry["offset"] + 700, entry["offset"] + entry["size"] // 2):
        (folder / TAR).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(UserError, match=r"clip 0 in '.*000000\.tar' is not what the manifest says"):
            Shards(folder).clip(0)
    for size in (0, 1, 512, len(whole) // 2):
        (folder / TAR).write_bytes(whole[:size])
        with pytest.raises(UserError, match="is cut short"):
            read_all(folder)


def sign(folder: Path, tar: bytes, clips: list[dict[str, Any]]) -> None:
    """Write a shard, and a manifest that has its sums, so that only its contents are wrong."""
    for clip in clips:
        clip["sha256"] = hashlib.sha256(tar[clip["offset"] : clip["offset"] + clip["size"]]).hexdigest()
    (folder / TAR).write_bytes(tar)
    (folder / MANIFEST).write_text(json.dumps(changed(manifest_of(folder), ("shards", 0, "clips"), clips)))


def test_damage_that_the_sums_agree_with(folder: Path) -> None:
    clips, whole = manifest_of(folder)["shards"][0]["clips"], (folder / TAR).read_bytes()
    random, verdicts = np.random.default_rng(0), Verdicts()
    with bounded_memory():
        for number in range(80):
            tar = bytearray(whole)
            tar[random.integers(len(tar))] ^= 1 << random.integers(8)
            sign(folder, bytes(tar), clips)
            verdicts.read(str(number), lambda: read_all(folder))
    assert not verdicts.faults and verdicts.refused


def _npy(shape: tuple[int, ...], dtype: str, body: bytes) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + body


def _npz(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, depth=array)
    return file.getvalue()


def _pack(members: dict[str, bytes | bytes]) -> bytes:
    """A clip's files; an empty one is of the kind that its name begins with."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(f"00000000.{name.split(':')[-1]}")
            member.size, member.linkname = len(data), "/etc/hostname"
            member.type = name[0].encode() if ":" in name else tarfile.REGTYPE
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def test_every_kind_of_wrong_member(folder: Path) -> None:
    whole, verdicts = (folder / TAR).read_bytes(), Verdicts()
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        first = [member for member in tar if member.name.startswith("00000000")]
        opened = {member.name.partition(".")[2]: tar.extractfile(member) for member in first}
        files = {name: file.read() for name, file in opened.items() if file}
    arrays = {
        "nothing": b"",
        "text": b"hello",
        "huge": _npy((10**12, ACTIONS), "<f4", b""),
        "cut": files["actions.npy"][:-3],
        "more": files["actions.npy"] + b"0",
        "shape": _npy((3, ACTIONS), "<f4", bytes(12 * ACTIONS)),
        "type": _npy((FRAMES, ACTIONS), "<f8", bytes(8 * FRAMES * ACTIONS)),
        "nan": _npy((FRAMES, ACTIONS), "<f4", b"\xff" * 4 * FRAMES * ACTIONS),
        "pickle": _npy((1,), "|O", b"cos\nsystem\n"),
        "version": b"\x93NUMPY\x02\x00",
        "header": b"\x93NUMPY\x01\x00\x10\x00{[]:1, ((((((  \n",
    }
    wrong: dict[str, dict[str, bytes]] = {}
    for name in files:
        rest = {key: data for key, data in files.items() if key != name}
        wrong |= {f"{name} {what}": {**files, name: data} for what, data in arrays.items()}
        wrong |= {f"{name} of type {kind}": {**rest, f"{kind}:{name}": b""} for kind in "12345S"}
        wrong[f"{name} gone"] = rest
    wrong["depth of floats"] = {**files, "depth.npz": _npz(np.zeros((FRAMES, SIDE, SIDE), np.float32))}
    wrong["depth too large"] = {**files, "depth.npz": _npz(np.zeros((FRAMES, 4000, 4000), np.uint16))}
    with bounded_memory():
        for label, members in {"as it was": files, **wrong}.items():
            tar_bytes = _pack(members)
            sign(folder, tar_bytes, [{"offset": 0, "size": len(tar_bytes), "frames": FRAMES}])
            verdicts.read(label, lambda: read_all(folder))
    assert not verdicts.faults
    assert not [sentence for sentence in verdicts.refused.values() if str(folder / TAR) not in sentence]
    spare = {"as it was", "poses.npy gone", "intrinsics.npy gone", "depth.npz gone"}
    assert spare <= set(verdicts.right)
    assert all(label.startswith("caption.txt") for label in set(verdicts.right) - spare)


def test_a_folder_without_clips_yet(folder: Path) -> None:
    (folder / MANIFEST).write_text(json.dumps({**manifest_of(folder), "shards": []}))
    assert len(Shards(folder)) == 0
    from dreamwalk.training.batches import open_data
    from dreamwalk.training.run import autoencode_doom

    with pytest.raises(UserError, match="holds no clips yet"):
        open_data(replace(autoencode_doom(), data=str(folder)))


class Mean(torch.nn.Module):
    """A codec for tests: the mean of 8x8 pixels."""

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        return video.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).mean((-1, -3))


@pytest.fixture
def latents(tmp_path: Path) -> Path:
    from PIL import Image

    (tmp_path / "mine").mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "mine" / f"{name}.png")
        (tmp_path / "mine" / f"{name}.txt").write_text(f"a picture, {name}")
    out = tmp_path / "latents"
    cached_latents(Mean(), open_captioned(tmp_path / "mine", [Bucket(1, 32, 32)]), out)
    return out


def read_latents(folder: Path) -> None:
    data = Latents(folder)
    for index in range(len(data)):
        assert data.latents(index).isfinite().all() and data.caption(index) is not None
    assert data.batch(range(2), seed=0, step=0).latents.ndim == 5


@pytest.mark.parametrize("name", [INDEX, HEADER])
def test_every_field_of_an_index_of_latents(latents: Path, name: str) -> None:
    content, verdicts = json.loads((latents / name).read_text()), Verdicts()
    with bounded_memory():
        for label, wrong in damaged(content, values=8):
            (latents / name).write_text("" if wrong is GONE else json.dumps(wrong))
            verdicts.read(label, lambda: read_latents(latents))
    assert not verdicts.faults and len(verdicts.refused) > 10
    if name == INDEX:
        assert "[0].file must be a text, got -1" in verdicts.refused["0.file = -1"]


def test_latents_lie_in_their_folder(latents: Path, tmp_path: Path) -> None:
    content = json.loads((latents / INDEX).read_text())
    os.rename(latents / content[0]["file"], tmp_path / "x.safetensors")
    for wrong in ("../x.safetensors", str(tmp_path / "x.safetensors")):
        (latents / INDEX).write_text(json.dumps(changed(content, (0, "file"), wrong)))
        with pytest.raises(UserError, match="must be a path within its own folder"):
            Latents(latents).latents(0)
    (latents / "y.safetensors").symlink_to(tmp_path / "x.safetensors")
    (latents / INDEX).write_text(json.dumps(changed(content, (0, "file"), "y.safetensors")))
    with pytest.raises(UserError, match="leads out of"):
        Latents(latents).latents(0)
