"""Public files of Oasis with tiny random weights (published/make_oasis_tiny.py); a system made of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from dreamwalk.backbones.stdit import STDiTConfig
from dreamwalk.codecs.vit import vit_tiny
from dreamwalk.published.oasis import ImportOasis, OasisSizes, oasis_system
from dreamwalk.rollout.realtime import Session
from dreamwalk.systems.forcing import Forcing
from dreamwalk.systems.open import load
from dreamwalk.weights import files

GOLDEN = Path(__file__).parent / "published" / "oasis_tiny.safetensors"
BACKBONE = STDiTConfig(channels=4, grid=(4, 6), width=16, depth=2, heads=2)
SIZES = OasisSizes(BACKBONE, vit_tiny())
WINDOW, STEPS, PROMPT = 4, 4, 2


@dataclass
class Given(Session):
    """A session whose noise is that of their loop."""

    drawn: tuple[Tensor, ...] = ()

    def noise(self, frame: int, use: int) -> Tensor:
        return self.drawn[self.cache.frames - PROMPT][:, 0]


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[torch.dtype]:
    """Tables that a module makes while it runs are of this precision too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield dtype
    finally:
        torch.set_default_dtype(before)


def golden() -> dict[str, Tensor]:
    return safetensors.torch.load_file(GOLDEN)


def rewrite(path: Path, tensors: dict[str, Tensor]) -> None:
    """A file of theirs from tensors that are named `dit.` or `vae.` before their names."""
    safetensors.torch.save_file({name.split(".", 1)[1]: tensor for name, tensor in tensors.items()}, path)


def write_files(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Their two files, in a precision."""
    tensors = {name: tensor.to(dtype) for name, tensor in golden().items()}
    for name, prefix in (("oasis500m", "dit."), ("vit-l-20", "vae.")):
        mine = {key: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        rewrite(folder / f"{name}.safetensors", mine)
    return folder


def imported(folder: Path, *, stored: torch.dtype = torch.float32, **asked: str) -> Forcing:
    """The system of the weight file that importing makes of the two files, which are written to `folder`."""
    given, out = write_files(folder, dtype=stored), folder / "ours.safetensors"
    order = ImportOasis(given, out, **asked)  # type: ignore[arg-type]
    tensors, metadata = oasis_system(order, SIZES, window=WINDOW, steps=STEPS)
    files.save(folder / "ours.safetensors", tensors, metadata=metadata)
    system = load(folder / "ours.safetensors")
    assert isinstance(system, Forcing)
    return system
