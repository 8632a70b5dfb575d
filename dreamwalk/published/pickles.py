"""Checkpoints that are pickles, which no other part of the package opens: only when asked to, and then only
tensors and plain containers are taken from them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamwalk.errors import UserError, brief
from dreamwalk.weights import files


def safe_or_pickled(pickled: Path) -> Path | None:
    """A file of the same tensors as `.safetensors`, or else the pickle; None where there is neither."""
    either = pickled.with_suffix(".safetensors"), pickled
    return next((path for path in either if path.is_file()), None)


def places_of(path: Path, *, trusted: bool) -> Mapping[str, Tensor | Path]:
    """Where the tensors of a file of either kind are, by name; UserErrors as of `read_state`."""
    if path.suffix == ".safetensors":
        return dict.fromkeys(files.read_shapes(path), path)
    return read_state(path, trusted=trusted)


def read_state(path: Path, *, trusted: bool) -> dict[str, Tensor]:
    """The tensors of a `.ckpt` or `.pt` file, by name: its `state_dict`, what DeepSpeed calls `module`, or
    the whole of it.

    They are read from the disk when they are first used. UserError unless `trusted`, and for a file that is
    damaged or holds more than tensors.
    """
    if not trusted:
        raise UserError(
            f"'{path}' is a pickle, of a kind that can run code when it is opened: say `--unsafe-pickle` if "
            "you trust where it came from"
        )
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged or hostile pickle may raise anything
        raise UserError(
            f"'{path}' is damaged, or holds more than tensors, which is not opened ({brief(error)}): fetch "
            "it again, or save its state_dict alone"
        ) from None
    state = loaded.get("state_dict", loaded.get("module", loaded)) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()) or not state:
        raise UserError(f"'{path}' holds no state_dict of tensors: give the file that its authors published")
    return {str(name): tensor.detach() for name, tensor in state.items()}
