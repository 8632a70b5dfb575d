"""A walk without an end in a level never seen: whether what was shown at its beginning still comes back.

    python benchmarks/long_walk.py forcing.rooms --frames 10000 --level 0

A dream begins from 48 true frames of a level of the split `test` and goes on under the actions of a walker in
the game, at the game's poses, on its own frames and its own depth. Every so many frames: the PSNR of pixels
whose surface the 48 frames showed (those of the frames before in which they are a twentieth of the picture),
frames a second with the game's share taken off, resident memory and points.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
import tyro
from endless import resident

from dreamwalk.clip import Clip, batch
from dreamwalk.evaluation.places import EVERY, visible_before
from dreamwalk.memory.contract import CameraState
from dreamwalk.memory.points import Clouds
from dreamwalk.systems.interactive import Interactive
from dreamwalk.systems.open import load
from dreamwalk.worlds.doom import DOOM_ACTIONS, Doom, start_of
from dreamwalk.worlds.walkers import walk

HISTORY = 48
ARRAYS = ("depth", "world_from_camera", "intrinsics")


@dataclass(frozen=True)
class Options:
    """Model, level and length."""

    model: tyro.conf.Positional[str] = "forcing.rooms"
    frames: int = 10_000
    level: int = 0
    """Number of the level."""
    every: int = 1000
    """Frames between rows of the table; the first row comes after 100."""
    steps: int = 2


@torch.inference_mode()
def main(options: Options) -> None:
    system = load(options.model)
    assert isinstance(system, Interactive)
    level, pose = start_of("test", number=options.level)
    game, walker = Doom(level), walk(level, np.random.default_rng(options.level))
    next(walker)
    frame, info = game.reset(seed=0, options={"pose": pose})
    shots = [_shot(frame, info, np.zeros(DOOM_ACTIONS.size, np.float32))]

    def step() -> Clip:
        nonlocal info
        move = walker.send(info)
        action = DOOM_ACTIONS.action(move.held, yaw=move.yaw, pitch=move.pitch)
        frame, _, _, _, info = game.step(action)
        return _shot(frame, info, DOOM_ACTIONS.pack(action))

    shots += [step() for _ in range(HISTORY - 1)]
    history = batch([_joined(shots)])
    session = system.begin(history)
    session.steps, (frame_pass, decode) = options.steps, system.engine()
    assert isinstance(session.memory, Clouds)
    seen: list[float] = []
    spent = 0.0
    for count in range(1, options.frames + 1):
        shot = step()
        clip = batch([shot])
        began = time.monotonic()
        camera = CameraState.of_clip(clip, 0)
        system.advance(session, clip.actions[:, 0], camera=camera, frame_pass=frame_pass, decode=decode)
        spent += time.monotonic() - began
        known = visible_before(batch([_joined([*shots, shot])]), HISTORY).any(0)
        if known.float().mean() > 0.05:
            assert session.shown is not None
            error = (session.shown[0, :3].clamp(-1, 1) + 1 - clip.video[0, 0] / 127.5).square().mean(0) / 4
            picked = error[EVERY // 2 :: EVERY, EVERY // 2 :: EVERY][known]
            seen.append(float(-10 * picked.mean().clamp(min=1e-6).log10()))
        if count == 100 or count % options.every == 0:
            mean = np.mean(seen) if seen else float("nan")
            print(
                f"frame {count}  seen {mean:.2f} dB in {len(seen)} frames  {count / spent:.1f} fps  "
                f"{resident():.0f} MB  {sum(map(len, session.memory.rows)):,} points",
                flush=True,
            )
            seen = []
    game.close()


def _shot(frame: np.ndarray, info: dict[str, np.ndarray], action: np.ndarray) -> Clip:
    arrays = {name: np.asarray(info[name], np.float32)[None] for name in ARRAYS}
    return Clip(frame.copy()[None], action[None], **arrays)


def _joined(shots: list[Clip]) -> Clip:
    names = ("video", "actions", *ARRAYS)
    return replace(shots[0], **{name: np.concatenate([getattr(s, name) for s in shots]) for name in names})


if __name__ == "__main__":
    main(tyro.cli(Options))
