from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dreamwalk.data.folders import Bucket, buckets, open_captioned
from dreamwalk.data.h264 import encode_video
from dreamwalk.data.latents import Latents, cached_latents
from dreamwalk.data.shards import Shards
from dreamwalk.data.videos import VideoFolder
from dreamwalk.data.writing import write_clips

WIDE, TALL, STILL = Bucket(5, 16, 32), Bucket(5, 32, 16), Bucket(1, 32, 32)
SIZES = (WIDE, TALL, STILL)
WHY = "cannot be read as a video (Invalid data found when processing input)"
NO_VIDEO = f"{WHY}: convert it to mp4, or take it away"


def write(path: Path, frames: int, size: tuple[int, int], caption: str | None, *, fps: float = 20) -> None:
    """A video whose frame i is of grey level 10 * i; a picture of level 90 where the name says so."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path)
    else:
        levels = np.arange(frames, dtype=np.uint8)[:, None, None, None] * 10
        path.write_bytes(encode_video(np.broadcast_to(levels, (frames, *size, 3)).copy(), fps))
    if caption is not None:
        path.with_suffix(".txt").write_text(caption + "\n")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    mine = tmp_path / "mine"
    write(mine / "a.mp4", 12, (40, 90), "wide")
    write(mine / "b.mp4", 5, (60, 34), "tall")
    write(mine / "more" / "c.mp4", 6, (16, 20), "small")
    write(mine / "d.png", 1, (40, 50), "still")
    write(mine / "e.mp4", 4, (32, 32), "short")
    write(mine / "f.mp4", 8, (32, 32), None)
    write(mine / "g.mp4", 1, (32, 32), "broken")
    (mine / "g.mp4").write_bytes(b"no video")
    return mine


class Means(nn.Module):
    """Latents are means over 4x4 pixels, of every second frame from the first on; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.batches: list[int] = []

    def encode(self, video: Tensor) -> Tensor:
        self.batches.append(len(video))
        return self.scale * nn.functional.avg_pool3d(video[:, ::2].transpose(1, 2), (1, 4, 4)).transpose(1, 2)


def test_sizes_share_the_work() -> None:
    made = buckets((256, 256), frames=33)
    assert Bucket(33, 256, 256) in made
    assert len(made) == 5
    assert max(b.height / b.width for b in made) == pytest.approx(16 / 9, rel=0.1)
    for b in made:
        assert (b.frames, b.height % 16, b.width % 16) == (33, 0, 0)
        assert abs(b.height * b.width / 256**2 - 1) < 0.08
    assert buckets((16, 16), frames=1, shapes=(1, 1.01)) == ((1, 16, 16),)


def test_each_file_goes_to_the_nearest_bucket_and_is_told(mine: Path) -> None:
    folder = open_captioned(mine, SIZES)
    went = [(piece.file, piece.number, piece.bucket, piece.caption) for piece in folder.pieces]
    assert went == [
        ("a.mp4", 0, WIDE, "wide"),
        ("a.mp4", 1, WIDE, "wide"),
        ("more/c.mp4", 0, WIDE, "small"),
        ("b.mp4", 0, TALL, "tall"),
        ("d.png", 0, STILL, "still"),
    ]
    assert dict(folder.left_out) == {
        "e.mp4": "shorter than every bucket of videos",
        "f.mp4": "no text beside it",
        "g.mp4": NO_VIDEO,
    }
    assert folder.enlarged == ("more/c.mp4",)
    assert folder.report().split("\n") == [
        "5x16x32: 3 clips",
        "5x32x16: 1 clips",
        "1x32x32: 1 clips",
        "left out: e.mp4: shorter than every bucket of videos",
        "left out: f.mp4: no text beside it",
        f"left out: g.mp4: {NO_VIDEO}",
        "not used: 3 frames at the ends of videos",
        "enlarged: 1 files",
    ]
    without = open_captioned(mine, SIZES[:2])
    assert dict(without.left_out)["d.png"] == "a picture, and no bucket of one frame"
    longer = open_captioned(mine, (*SIZES, Bucket(10, 16, 16)))
    assert Counter(piece.bucket for piece in longer.pieces)[Bucket(10, 16, 16)] == 1


def test_clips_are_of_their_buckets_size(mine: Path) -> None:
    folder = open_captioned(mine, SIZES)
    clips = list(folder.clips(folder.pieces))
    assert [clip.video.shape[:3] for clip in clips] == [piece.bucket for piece in folder.pieces]
    levels = [clip.video.mean((1, 2, 3)) for clip in clips]
    assert abs(levels[0] - 10 * np.arange(5)).max() < 3
    assert abs(levels[1] - 10 * np.arange(5, 10)).max() < 3
    assert clips[4].video.mean() == 90
    (second,) = folder.clips([folder.pieces[1]])
    assert (second.video == clips[1].video).all()
    assert (second.caption, second.actions.shape) == ("wide", (5, 0))


def test_frames_are_thinned_out(mine: Path) -> None:
    folder = open_captioned(mine, SIZES, fps=10)
    assert [(piece.file, piece.fps) for piece in folder.pieces] == [("a.mp4", 10), ("d.png", 0)]
    (clip, _) = folder.clips(folder.pieces)
    assert abs(clip.video.mean((1, 2, 3)) - 20 * np.arange(5)).max() < 3


def test_a_folder_without_anything_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing in .*none of .*\.mp4.* put clip\.mp4 and clip\.txt there"):
        open_captioned(tmp_path, SIZES)
    write(tmp_path / "a.mp4", 6, (16, 32), None)
    with pytest.raises(ValueError, match=r"left out: a\.mp4: no text beside it"):
        open_captioned(tmp_path, SIZES)


def test_latents_are_encoded_once(mine: Path, tmp_path: Path) -> None:
    codec, folder, out = Means(), open_captioned(mine, SIZES), tmp_path / "out"
    data = cached_latents(codec, folder, out, at_once=2, dtype=torch.float32)
    assert codec.batches == [2, 1, 1, 1]
    assert len(data) == 5
    assert data.buckets == {(3, 3, 4, 8): [0, 1, 2], (3, 3, 8, 4): [3], (1, 3, 8, 8): [4]}
    for index, clip in enumerate(folder.clips(folder.pieces)):
        video = torch.from_numpy(clip.video).permute(0, 3, 1, 2)[None].float() / 127.5 - 1
        torch.testing.assert_close(data.latents(index), codec.encode(video)[0])
        assert data.caption(index) == clip.caption
    codec.batches.clear()
    cached_latents(codec, folder, out, dtype=torch.float32)
    assert codec.batches == []


def test_caching_goes_on_where_it_was_stopped(mine: Path, tmp_path: Path) -> None:
    class Stopping(Means):
        __qualname__ = Means.__qualname__

        def encode(self, video: Tensor) -> Tensor:
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().encode(video)

    folder, out = open_captioned(mine, SIZES), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        cached_latents(Stopping(), folder, out)
    with pytest.raises(ValueError, match=r"let `cached_latents` into .* run to its end"):
        Latents(out)
    codec = Means()
    data = cached_latents(codec, folder, out)
    assert codec.batches == [1, 1, 1]
    whole = cached_latents(Means(), folder, tmp_path / "whole")
    assert all(torch.equal(data.latents(k), whole.latents(k)) for k in range(5))
    assert not list(out.rglob(".*"))
    write(mine / "h.mp4", 5, (16, 32), "new")
    (mine / "a.txt").write_text("told anew")
    data = cached_latents(codec, open_captioned(mine, SIZES), out)
    assert (len(data), len(codec.batches), data.caption(0)) == (6, 4, "told anew")


def test_latents_of_another_codec_are_not_mixed_in(mine: Path, tmp_path: Path) -> None:
    folder = open_captioned(mine, SIZES)
    data = cached_latents(Means(), folder, tmp_path)
    other = Means()
    nn.init.constant_(other.scale, 2.0)
    with pytest.raises(ValueError, match="holds latents of another codec: choose another folder"):
        cached_latents(other, folder, tmp_path)
    with pytest.raises(ValueError, match="another dtype"):
        cached_latents(Means(), folder, tmp_path, dtype=torch.bfloat16)
    (file,) = tmp_path.glob("b.mp4.*")
    file.write_bytes(b"?")
    with pytest.raises(ValueError, match="is missing or damaged"):
        data.latents(3)


def test_a_batch_is_a_function_of_seed_and_step(mine: Path, tmp_path: Path) -> None:
    data = cached_latents(Means(), open_captioned(mine, SIZES), tmp_path / "out")
    whole = data.batch(range(4), seed=1, step=7)
    again = Latents(tmp_path / "out").batch(range(2, 4), seed=1, step=7)
    assert torch.equal(whole.latents[2:], again.latents)
    assert whole.caption[2:] == again.caption
    drawn = [data.batch(range(4), seed=0, step=step) for step in range(60)]
    sizes = Counter(tuple(each.latents.shape[1:]) for each in drawn)
    assert set(sizes) == set(data.buckets)
    assert abs(sizes[(3, 3, 4, 8)] / 60 - 3 / 5) < 0.2
    told = [each.caption for each in drawn if each.latents.shape[3:] == (4, 8)]
    assert {caption for texts in told for caption in texts} == {"wide", "small"}
    assert len({tuple(texts) for texts in told}) > 3


def test_captioned_videos_without_actions_become_shards(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    write(mine / "a.mp4", 9, (16, 32), "grey")
    write(mine / "b.mp4", 5, (16, 32), "greyer")
    source = VideoFolder(mine, size=(16, 16), clip_frames=4, fit="cut")
    data = Shards(write_clips(source, len(source), tmp_path / "out"))
    assert [data.clip(k).caption for k in range(len(data))] == ["grey", "grey", "greyer"]
    assert data.schema.size == 0
    assert data.clip(1).actions.shape == (4, 0)
    assert abs(data.clip(1).video.mean((1, 2, 3)) - 10 * np.arange(4, 8)).max() < 3
    (mine / "b.actions.csv").write_text("jump\n" + "1\n" * 5)
    source = VideoFolder(mine, clip_frames=4)
    assert list(source.contents.files) == ["b.mp4"]
    assert "left out: a.mp4: it needs one file of actions beside it" in source.report()
