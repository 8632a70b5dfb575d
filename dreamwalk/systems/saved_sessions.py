"""Sessions on disk: a folder from which a walk goes on as if it had never stopped."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from dreamwalk.errors import UserError, writing
from dreamwalk.layers.cache import RingCache
from dreamwalk.memory.contract import CameraState
from dreamwalk.rollout.realtime import Session
from dreamwalk.systems.interactive import Interactive
from dreamwalk.weights import files

NAME = "session.safetensors"
CAMERA = "camera."
PLAIN = ("seed", "steps", "history_sigma", "still_frames")


def save_session(session: Session, folder: Path | str) -> None:
    """Write a session; UserError where that cannot be. What lies there is replaced, the memory first."""
    folder, cache = Path(folder), session.cache
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    session.memory.save(folder)
    tensors: dict[str, Tensor] = {"keys": cache.keys, "values": cache.values}
    if session.camera is not None:
        tensors |= {CAMERA + f.name: getattr(session.camera, f.name) for f in fields(CameraState)}
    if session.shown is not None:
        tensors["shown"] = session.shown
    about = {name: getattr(session, name) for name in PLAIN} | {"frames": cache.frames}
    files.save(folder / NAME, tensors, metadata={"session": about})


@torch.inference_mode()
def open_session(system: Interactive, folder: Path | str) -> Session:
    """The session that was saved in a folder; UserError where there is none, or one of another system."""
    folder, device = Path(folder), next(system.parameters()).device
    tensors, metadata = files.read(folder / NAME)
    about, shape = metadata.get("session"), (system.config.backbone.channels, *system.config.backbone.grid)
    blank = system.backbone.cache(system.config.window)
    keys, values = tensors.get("keys"), tensors.get("values")
    like = [None if x is None else (x.dtype, x.shape[:1], x.shape[2:]) for x in (keys, values)]
    wanted = blank.keys.dtype, blank.keys.shape[:1], blank.keys.shape[2:]
    if not isinstance(about, dict) or set(about) != {*PLAIN, "frames"} or like != [wanted, wanted]:
        raise UserError(f"'{folder}' holds no session of this system: begin a new one")
    assert keys is not None and values is not None
    cache = RingCache(keys.clone().to(device), values.clone().to(device), blank.tokens, int(about["frames"]))
    parts = {
        name.removeprefix(CAMERA): x.to(device) for name, x in tensors.items() if name.startswith(CAMERA)
    }
    still = tuple(int(count) for count in about["still_frames"])
    memory = system.memory.open(folder, rows=keys.shape[1])
    made = Session(
        seed=int(about["seed"]),
        steps=int(about["steps"]),
        memory=memory,
        cache=cache,
        history_sigma=float(about["history_sigma"]),
        shape=shape,
    )
    made.camera, made.still_frames = CameraState(**parts) if parts else None, still
    made.shown = tensors["shown"].to(device) if "shown" in tensors else None
    return made
