import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamwalk.data import shards
from dreamwalk.data.doom_walks import DoomWalks
from dreamwalk.data.h264 import decode_video, encode_video
from dreamwalk.data.shards import Shards, find_faults
from dreamwalk.data.writing import write_clips

CLIPS = 70
SMALL = {"level": "home", "split": "test", "frames": CLIPS * 6, "seed": 3, "clip_frames": 6, "size": (48, 64)}
SCRIPT = f"""
from dreamwalk.data.doom_walks import DoomWalks
from dreamwalk.data.writing import write_clips
if __name__ == "__main__":
    import sys
    source = DoomWalks(**{SMALL!r})
    write_clips(source, len(source), sys.argv[1], workers=int(sys.argv[2]))
"""


def collect(*, out: Path, workers: int = 1, **flags: Any) -> Path:
    source = DoomWalks(**flags)
    return write_clips(source, len(source), out, workers=workers)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collect(out=tmp_path_factory.mktemp("clips") / "whole", **SMALL)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def descendants(parent: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def lives(process: int) -> bool:
    return Path(f"/proc/{process}/exe").exists()


def copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for name, data in contents(folder).items():
        (to / name).write_bytes(data)
    return to


def test_clips_come_back(folder: Path) -> None:
    data = Shards(folder)
    assert (len(data), data.frames, data.size, data.fps) == (CLIPS, CLIPS * 6, (48, 64), 35 / 3)
    clip = data.clip(CLIPS - 1)
    assert clip.video.shape == (6, 48, 64, 3)
    assert clip.depth.shape == (6, 48, 64)
    assert clip.world_from_camera.shape == (6, 4, 4)
    assert clip.actions.shape == (6, data.schema.size)
    assert not clip.actions[0].any()
    assert " room" in clip.caption or " hall" in clip.caption
    part = data.window(CLIPS - 1, 2, 3)
    assert np.array_equal(part.video, clip.video[2:5])
    assert part.depth is None
    with pytest.raises(ValueError, match=r"frames 4\.\.7"):
        data.window(0, 4, 3)
    with pytest.raises(IndexError):
        data.clip(CLIPS)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves files open
def test_webdataset_reads_them_too(folder: Path) -> None:
    import webdataset

    samples = list(webdataset.WebDataset(str(folder / "000000.tar"), shardshuffle=False))
    assert len(samples) == 32
    assert {"video.mp4", "depth.npz", "poses.npy", "intrinsics.npy", "actions.npy", "caption.txt"} < set(
        samples[0]
    )


def test_memory_is_bounded(folder: Path) -> None:
    one = 6 * 48 * 64 * 3
    data = Shards(folder, memory=5 * one)
    for index in [*range(20), 3, 19, 3]:
        assert np.array_equal(data.window(index, 0, 6).video, data.clip(index).video)
        assert data._used <= 5 * one or len(data._clips) == 1


def test_video_is_all_but_lossless_and_always_the_same() -> None:
    y, x = np.mgrid[0:96, 0:128]
    frames = np.stack([np.stack([(x + 3 * t) % 128, y, (x * y // 64) % 256], -1) for t in range(8)]).astype(
        np.uint8
    )
    data = encode_video(frames, 35 / 3)
    error = ((decode_video(data, frames=8, size=(96, 128)).astype(float) - frames) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > 38
    assert data == encode_video(frames, 35 / 3)


def test_two_workers_write_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    assert contents(collect(out=tmp_path / "two", workers=2, **SMALL)) == contents(folder)


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_resumed(folder: Path, tmp_path: Path, workers: int) -> None:
    out, temporary = tmp_path / "killed", tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(out), str(workers)],
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    for _ in range(600):
        if list(out.glob("*.tar")):
            break
        time.sleep(0.05)
    children = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(300):
        if not any(map(lives, children)) and not list(temporary.glob("dreamwalk-*")):
            break
        time.sleep(0.1)
    else:
        raise AssertionError("workers, engines or their files are left")
    before = Shards(out)
    assert len(before) < CLIPS
    assert find_faults(out) == []
    (out / ".000002.tar.1.partial").write_bytes(b"half of a shard")
    assert contents(collect(out=out, **SMALL)) == contents(folder)


def test_a_killed_worker_takes_its_engine_along(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT.replace("420", "4200"), str(tmp_path / "clips"), "2"]
    env = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    try:
        for _ in range(600):
            found = [p for p in descendants(process.pid) if b"viz_instance_id" in command_of(p)]
            if found:
                break
            time.sleep(0.05)
        engine = found[0]
        worker = int(Path(f"/proc/{engine}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(worker, signal.SIGKILL)
        assert "a worker process died" in process.communicate(timeout=120)[1]
        for _ in range(300):
            if not lives(engine):
                break
            time.sleep(0.1)
        assert not lives(engine)
    finally:
        process.kill()
        process.wait()


def command_of(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def test_more_frames_keep_what_is_there(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "grown"
    collect(out=out, **{**SMALL, "frames": 35 * 6})
    first = (out / "000000.tar").stat().st_mtime_ns
    assert contents(collect(out=out, **SMALL)) == contents(folder)
    assert (out / "000000.tar").stat().st_mtime_ns == first


def test_other_settings_need_another_folder(folder: Path, tmp_path: Path) -> None:
    out = copy(folder, tmp_path / "copy")
    with pytest.raises(ValueError, match="holds clips of another seed: choose another folder"):
        collect(out=out, **{**SMALL, "seed": 4})
    assert contents(out) == contents(folder)


def test_check_finds_what_is_broken(folder: Path, tmp_path: Path) -> None:
    assert find_faults(folder) == []
    out = copy(folder, tmp_path / "broken")
    data = bytearray((out / "000000.tar").read_bytes())
    entry = json.loads((out / "manifest.json").read_text())["shards"][0]["clips"][7]
    data[entry["offset"] + entry["size"] // 2] ^= 1
    (out / "000000.tar").write_bytes(data)
    (out / "000001.tar").write_bytes((out / "000001.tar").read_bytes()[:-40_000])
    (out / "000002.tar").unlink()
    faults = find_faults(out)
    assert [name for name, _ in faults] == ["000000.tar", "000001.tar", "000002.tar"]
    assert faults[0][1] == "clip 7 has changed bytes"
    assert faults[1][1].startswith("cut short")
    assert faults[2][1] == "missing"
    with pytest.raises(ValueError, match=r"000002\.tar' is missing"):
        Shards(out).clip(CLIPS - 1)
    with pytest.raises(ValueError, match=r"000001\.tar' is cut short"):
        Shards(out).clip(63)


def test_a_shard_that_is_cut_short_is_made_again(folder: Path, tmp_path: Path) -> None:
    out = copy(folder, tmp_path / "short")
    (out / "000002.tar").write_bytes((out / "000002.tar").read_bytes()[:1000])
    assert contents(collect(out=out, **SMALL)) == contents(folder)


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = shards.write_shard, []

    def full(path: Path, samples: list) -> None:
        if written:
            path.write_bytes(b"as much as there was room for")
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        write(path, samples)

    monkeypatch.setattr(shards, "write_shard", full)
    with pytest.raises(
        ValueError, match=r"is full \(32 of 40 clips are written and stay valid\): free some space"
    ):
        collect(out=tmp_path, **{**SMALL, "frames": 40 * 6})
    assert len(Shards(tmp_path)) == 32
    assert find_faults(tmp_path) == []
    assert sorted(contents(tmp_path)) == ["000000.tar", "manifest.json"]


def test_folders_that_are_not_clips(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"manifest\.json' is missing"):
        Shards(tmp_path / "nowhere")
    out = copy(folder, tmp_path / "old")
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(ValueError, match="version 99, this reads dreamwalk-clips version 1"):
        Shards(out)
    (out / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        Shards(out)


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    for change, words in (
        ({"split": "dev"}, "unknown split 'dev'"),
        ({"frames": 0}, "at least 1"),
        ({"clip_frames": 1}, "at least 2 frames"),
        ({"level": "hme"}, "unknown level 'hme'"),
    ):
        with pytest.raises(ValueError, match=words):
            collect(out=tmp_path / "x", **{**SMALL, **change})
    assert not (tmp_path / "x").exists()
