"""What stays of places: the truth says what was seen, what is new, and what was found again."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from box_room import dream_of_rooms, walk
from toy import Toy

from dreamwalk.clip import Clip
from dreamwalk.codecs.rgbd import codec_input
from dreamwalk.data.writing import write_clips
from dreamwalk.errors import UserError
from dreamwalk.evaluation.places import (
    DreamedWalk,
    EvaluatePlaces,
    evaluate_places,
    measure_places,
    visible_before,
)

TURNS = [0, 10, 20, 60, 100, 140, 100, 60, 20, 0, 0, 0]


@dataclass(frozen=True)
class BoxWalks(Toy):
    """Turns in a box room, away and back."""

    deep: bool = True
    turns: tuple[int, ...] = tuple(TURNS)

    def clips(self, indices: range) -> Iterator[Clip]:
        for _ in indices:
            clip = walk([(0, 0, heading) for heading in self.turns])
            arrays = {
                name: getattr(clip, name)[0].numpy()
                for name in ("actions", "world_from_camera", "intrinsics")
            }
            depth = clip.depth[0].numpy() if self.deep else None
            yield Clip(clip.video[0].permute(0, 2, 3, 1).numpy(), depth=depth, **arrays)


def test_the_truth_says_what_was_visible() -> None:
    clip = walk([(0, 0, heading) for heading in TURNS])
    before = visible_before(clip, 9).float().mean((1, 2))
    assert before[0] > 0.99, "the same view"
    assert before[5] < 0.05, "the opposite one"
    assert 0.5 < before[2] < 0.95


def test_who_repeats_the_truth_is_perfect_and_who_stands_still_earns_nothing() -> None:
    system, clip = dream_of_rooms(), walk([(0, 0, heading) for heading in TURNS])
    truth = codec_input(clip, 4)[0, 2:, :3]
    perfect = measure_places(system, [DreamedWalk(clip, truth, 2, 0)])["tables"]
    still = measure_places(system, [DreamedWalk(clip, truth[:1].expand_as(truth), 2, 0)])["tables"]
    for part in ("all", "seen", "new"):
        assert min(perfect[f"psnr dream {part}"].values()) > 55
        assert perfect[f"sharpness {part}"]["8"] == pytest.approx(1, abs=1e-3)
    assert perfect["psnr revisit>1"]["8"] > 55 and still["psnr dream all"]["8"] < 25


def test_the_examination_of_places_writes_its_report(tmp_path: Path) -> None:
    data, system = write_clips(BoxWalks(clip_frames=len(TURNS)), 2, tmp_path / "clips"), dream_of_rooms()
    asked = EvaluatePlaces(data=str(data), out=tmp_path / "out", clips=2, history=2)
    report = evaluate_places(system, asked, name="tiny")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["tables"] == report["tables"]
    assert set(report["tables"]["psnr dream seen"]) == {"1", "8"} and report["points"] > 500
    told = evaluate_places(system, replace(asked, own=()), name="tiny")
    off = evaluate_places(system, replace(asked, own=(), memory=False), name="tiny")
    assert told["tables"]["psnr dream seen"]["8"] > off["tables"]["psnr dream seen"]["8"]


def test_what_cannot_be_examined_for_places_is_named(tmp_path: Path) -> None:
    system, flat = dream_of_rooms(), write_clips(BoxWalks(12, deep=False), 1, tmp_path / "flat")
    asked = EvaluatePlaces(data=str(flat), out=tmp_path / "out", history=2)
    with pytest.raises(UserError, match="has no depth or no poses"):
        evaluate_places(system, asked, name="tiny")
    with pytest.raises(UserError, match=r"no walk of .* has 99 frames"):
        evaluate_places(system, replace(asked, frames=97), name="tiny")
    with pytest.raises(UserError, match="names poses, depth and frames, got 'sound'"):
        evaluate_places(system, replace(asked, own=("sound",)), name="tiny")
