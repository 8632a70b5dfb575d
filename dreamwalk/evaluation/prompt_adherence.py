"""Prompt adherence of generated clips, measured by classifiers of the simulator's own vocabulary.

Clips are generated from captions of held-out walks. An inverse-dynamics model (`systems/inverse.py`) predicts
which way a clip turns and whether it walks, a linear classifier of small images in which room it is; both are
trained on real frames. Two bounds are measured alike: the real frames (ceiling) and the same clips under each
other's captions (chance).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from dreamwalk.clip import Clip, batch
from dreamwalk.data.captions import phases, room_at
from dreamwalk.data.shards import Shards
from dreamwalk.errors import UserError
from dreamwalk.evaluation.control import Columns, inverse_schema
from dreamwalk.systems.inverse import Inverse
from dreamwalk.worlds.scenery import Level

TURNS_LEFT, TURNS_RIGHT = ("turn left", "bear left"), ("turn right", "bear right")
WALKS = ("ahead", "bear left", "bear right")
NEAR = 4
"""Frames about the end of the first phase in which its room is looked for."""


@dataclass(frozen=True)
class CaptionFacts:
    """The checkable content of a caption."""

    turn: int
    """1 to the left, -1 to the right, 0 both or neither."""
    walks: bool | None
    """Whether most of it is walking ahead; None in between."""
    room: str
    """The walls of the room that is named first."""
    at: int
    """The frame by which one is in it."""


@dataclass(frozen=True)
class Adherence:
    """Shares of clips, in [0, 1], that follow their caption, and the number of clips measured."""

    turn: float
    turns: int
    walk: float
    """Balanced over clips that should walk and clips that should not."""
    walks: int
    room: float
    rooms: int


def caption_facts(level: Level, poses: np.ndarray) -> CaptionFacts:
    """What the caption of these frames says (`data.captions`)."""
    said = phases(poses)
    motions = [phase.motion for phase in said]
    left, right = (any(m in turns for m in motions) for turns in (TURNS_LEFT, TURNS_RIGHT))
    ahead = sum(phase.stop - phase.start for phase in said if phase.motion in WALKS) / (len(poses) - 1)
    still = not any(m in (*WALKS, "back") for m in motions)
    room = room_at(level, poses, said[0].stop)
    walks = True if ahead > 0.6 else False if still else None
    return CaptionFacts(int(left) - int(right), walks, room.wall if room else "", said[0].stop)


class RoomClassifier(nn.Module):
    """Logistic regression of a frame's room from its colours on a coarse grid."""

    def __init__(self, rooms: Sequence[str]) -> None:
        super().__init__()
        self.rooms = tuple(rooms)
        self.linear = nn.Linear(3 * 12 * 16 * 2, len(self.rooms))

    def forward(self, frames: Tensor) -> Tensor:
        """Logits `(n, rooms)` of uint8 frames `(n, 3, h, w)`."""
        return self.linear(self._colours(frames))

    def _colours(self, frames: Tensor) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(frames.float() / 255, (12, 16)).flatten(1) - 0.5
        return torch.cat([x, 2 * x.abs()], dim=1)

    def learn(self, frames: Tensor, rooms: Sequence[str], *, steps: int = 300) -> RoomClassifier:
        """Fit it to frames whose rooms are known."""
        targets = torch.tensor([self.rooms.index(room) for room in rooms])
        colours = self._colours(frames)
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.02, weight_decay=0.05)
        for _ in range(steps):
            loss = nn.functional.cross_entropy(self.linear(colours), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return self.requires_grad_(False)


def _room_classifier(shards: Shards, level: Level, *, clips: int) -> RoomClassifier:
    """A classifier of the level's rooms, fitted to frames spread over some clips."""
    frames, rooms = [], []
    for index in np.linspace(0, len(shards) - 1, min(clips, len(shards))).astype(int):
        clip = shards.clip(int(index), depth=False)
        for t in range(0, len(clip), 12):
            room = level.room_at(*clip.world_from_camera[t, :2, 3])
            if room is not None:
                frames.append(clip.video[t])
                rooms.append(room.wall)
    if not frames:
        raise UserError(f"no clip of '{shards.path}' is in a room of its level: collect more")
    pictures = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    return RoomClassifier(sorted(set(rooms))).learn(pictures, rooms)


@dataclass(frozen=True)
class ClipClassifiers:
    """Classifiers of clips, all trained on real frames."""

    inverse: Inverse
    rooms: RoomClassifier
    columns: Columns
    """Where the inverse-dynamics model has yaw and `forward`."""
    walking: float
    """Mean probability of `forward` from which a clip walks: halfway between those that do and do not."""

    @torch.inference_mode()
    def motion(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Degrees that clips turn to the left, and the mean probability of `forward`, `(b,)` each."""
        read = [self.inverse.read(clip[None]) for clip in video]
        buttons, axes = (torch.cat(part) for part in zip(*read, strict=True))
        turned = self.columns.limit * axes[..., self.columns.yaw].sum(1)
        return -turned, buttons[..., self.columns.forward].sigmoid().mean(1)


def fit_classifiers(shards: Shards, level: Level, inverse: Inverse, *, clips: int = 200) -> ClipClassifiers:
    """Readers of a level, fitted to windows of the clips that systems were trained on.

    UserError for an inverse-dynamics model that does not read yaw and `forward`.
    """
    rooms = _room_classifier(shards, level, clips=clips)
    columns = Columns.of(inverse_schema(inverse, shards.schema))
    if columns.yaw is None or columns.forward is None:
        raise UserError("motion is read from `yaw` and `forward`: this model does not read both")
    found = ClipClassifiers(inverse, rooms, columns, walking=0.5)
    windows = draw_windows(shards, clips, frames=33, seed=1)
    walks = [caption_facts(level, clip.world_from_camera).walks for clip in windows]
    means = []
    for want in (True, False):
        chosen = [clip for clip, walk in zip(windows, walks, strict=True) if walk is want]
        if not chosen:
            what = "walks ahead" if want else "stays where it is"
            raise UserError(f"no clip of '{shards.path}' {what}, so walking is not to be read: collect more")
        means.append(float(found.motion(batch(chosen).video)[1].mean()))
    return replace(found, walking=sum(means) / 2)


def draw_windows(shards: Shards, count: int, *, frames: int, seed: int = 0) -> list[Clip]:
    """Windows of clips, captioned, drawn by a seed."""
    draw = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        index = int(draw.integers(len(shards)))
        if shards.frames_of(index) < frames:
            raise UserError(
                f"clip {index} of '{shards.path}' has {shards.frames_of(index)} frames, fewer than the "
                f"{frames} of a dream: use a smaller `--frames`, or collect longer clips"
            )
        start = int(draw.integers(shards.frames_of(index) - frames + 1))
        drawn.append(shards.window(index, start, frames))
    return drawn


@torch.inference_mode()
def adherence(video: Tensor, facts: Sequence[CaptionFacts], classifiers: ClipClassifiers) -> Adherence:
    """Classify uint8 `(b, t, 3, h, w)` and compare with the captions."""
    yaw, ahead = classifiers.motion(video)
    right = [float(torch.sign(yaw[i]) == fact.turn) for i, fact in enumerate(facts) if fact.turn]
    walking = ahead > classifiers.walking
    walks: dict[bool, list[float]] = {True: [], False: []}
    found = []
    for clip, walks_now, fact in zip(video, walking, facts, strict=True):
        if fact.walks is not None:
            walks[fact.walks].append(float(walks_now == fact.walks))
        if fact.room:
            near = clip[max(0, fact.at - NEAR + 1) : fact.at + 1]
            best = int(classifiers.rooms(near).mean(0).argmax())
            found.append(float(classifiers.rooms.rooms[best] == fact.room))
    walk, count = np.mean([np.mean(each) for each in walks.values() if each]), sum(map(len, walks.values()))
    turn, walk, room = (float(each) for each in (np.mean(right), walk, np.mean(found)))
    return Adherence(turn, len(right), walk, count, room, len(found))


class _InverseFeatures(nn.Module):
    """Features of pairs of frames, before the last layer of an inverse-dynamics model."""

    num_features = 256

    def __init__(self, inverse: Inverse) -> None:
        super().__init__()
        self.inverse = inverse

    def forward(self, pairs: Tensor) -> Tensor:
        before, after = (pairs.float() / 127.5 - 1).chunk(2, dim=1)
        return self.inverse.head[:2](self.inverse.trunk(torch.cat([before, after - before], dim=1)))


@torch.inference_mode()
def frechet_distance(real: Tensor, dreamt: Tensor, inverse: Inverse) -> float:
    """Fréchet distance of neighbouring frames, uint8 `(b, t, 3, h, w)` each, in the features of an
    inverse-dynamics model.

    What FVD (arXiv 1812.01717) asks of a network trained on films of people, asked of one trained on this
    world: it compares only systems of the same world.
    """
    features, size = _InverseFeatures(inverse), (6, 96, 128)
    measure = FrechetInceptionDistance(feature=features, normalize=False, input_img_size=size)
    for video, is_real in ((real, True), (dreamt, False)):
        for clip in video:
            measure.update(torch.cat([clip[:-1], clip[1:]], dim=1), real=is_real)
    return float(measure.compute())
