"""Where a dream begins: where one sees far, and where somebody went on from."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from toy import Toy

from dreamwalk.clip import Clip
from dreamwalk.data.shards import Shards
from dreamwalk.data.writing import write_clips
from dreamwalk.training.world_spec import world_spec


class Views(Toy):
    """Clip k of 16 sees `40 + 40 k` units far, but for a pillar right ahead in every odd one; it walks on."""

    def clips(self, indices: range) -> Iterator[Clip]:
        for index, clip in zip(indices, super().clips(indices), strict=True):
            depth = np.full((len(clip), 32, 32), 40.0 + 40 * index, np.float32)
            depth[0, :, 14:18] = 20 if index % 2 else depth[0, 0, 0]
            poses = clip.world_from_camera.copy()
            poses[:, 0, 3] += 5 * np.arange(len(clip))
            yield replace(clip, depth=depth, world_from_camera=poses)


def test_a_dream_begins_where_one_sees_far(tmp_path: Path) -> None:
    data = Shards(write_clips(Views(), 16, tmp_path / "views"))
    made = world_spec(data, starts=4)
    pictures = [data.clip(k).video[0] for k in range(16)]
    chosen = [next(k for k in range(16) if np.array_equal(pictures[k], start)) for start in made.starts]
    assert chosen == [14, 12, 10, 8], "the farthest first, and none behind a pillar"
    assert np.array_equal(made.strolls, np.stack([data.clip(k).actions[1:] for k in chosen]))
    assert np.array_equal(made.poses, np.stack([data.clip(k).world_from_camera[0] for k in chosen]))


def test_a_dream_begins_with_a_clip_that_leads_somewhere(tmp_path: Path) -> None:
    class Half(Views):
        def clips(self, indices: range) -> Iterator[Clip]:
            for clip in super().clips(indices):
                still = clip.world_from_camera[0, 0, 3] * 0 + clip.depth.max() > 400  # the far ones stand
                depth = np.full_like(clip.depth, 300.0)
                poses = clip.world_from_camera.copy()
                poses[:, 0, 3] = 40 if still else poses[:, 0, 3]
                yield replace(clip, depth=depth, world_from_camera=poses)

    made = world_spec(Shards(write_clips(Half(), 16, tmp_path / "half")), starts=4)
    data = Shards(tmp_path / "half")
    moved = {k for k in range(16) if np.ptp(data.clip(k).world_from_camera[:, 0, 3]) > 1}
    chosen = {k for k in range(16) for start in made.starts if np.array_equal(data.clip(k).video[0], start)}
    assert len(chosen) == 4 and chosen <= moved


def test_what_no_clip_does_is_not_learnt(toy_data: Path) -> None:
    made = world_spec(Shards(toy_data))
    assert made.unlearnt == ("forward", "back", "left", "right", "place", "pitch")
    assert (made.world, made.level) == ("toy", "")
    vector = np.ones(7, np.float32)
    assert made.learnt(vector).tolist() == [0, 0, 0, 0, 0, 1, 0]
    again = type(made).unpack(*made.pack())
    assert (again.unlearnt, again.world) == (made.unlearnt, "toy")
    assert np.array_equal(again.strolls, made.strolls)
