"""Export the weights of a run for a release: half precision or less, and notes on their training.

python -m dreamwalk.training.export_release runs/NAME --out dreamwalk/pretrained/NAME.safetensors
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

from dreamwalk.data.shards import Shards
from dreamwalk.errors import UserError
from dreamwalk.systems.open import config_class, locate, system_class
from dreamwalk.training.world_spec import world_spec
from dreamwalk.weights import files
from dreamwalk.weights.config import from_json
from dreamwalk.weights.quantized import pack

FILTER = "memory.pixels.", "memory.depth."
CRITIC = "memory.critic."
"""Of what only training needs."""


@dataclass(frozen=True)
class Release:
    """Write a run's averaged weights in half precision or less, with notes."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    out: Path
    """Weight file to write."""
    hardware: str = "two CPU cores"
    """What it was trained on, for the notes."""
    codec: Path | None = None
    """Take the decoder from this run of `autoencode`: the same encoder, trained further."""
    pixels: str = ""
    """Take the filter of decoded frames, and the depth of pictures, from these weights."""
    starts: str = ""
    """Clips whose first frames one begins from, instead of those of the data that it was trained on."""
    bits: Literal[4, 6, 8, 16] = 16
    """Of the numbers in matrices."""
    alias_of: str = ""
    """Shipped weights that serve this system as well: only its config is written, and their name."""


def export_release(order: Release) -> None:
    """Read, halve, note, write. UserError if the codec's encoder is another one."""
    tensors, metadata = files.read(locate(order.run))
    if order.alias_of:
        _write_alias(order, metadata)
        return
    if order.codec:
        tensors |= _decoder(tensors, files.read(locate(order.codec))[0], str(order.codec))
    if order.pixels:
        lent = files.read(locate(order.pixels))[0]
        tensors |= {name: tensor for name, tensor in lent.items() if name.startswith(FILTER)}
        theirs = files.metadata(locate(order.pixels))["config"]["memory"]["pixels"]
        metadata["config"]["memory"]["pixels"] = theirs
    if order.starts:
        arrays, metadata["world_spec"] = world_spec(Shards(order.starts)).pack()
        tensors |= arrays
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_unused(metadata))}
    halves = {name: _half(name, tensor) for name, tensor in tensors.items() if CRITIC not in name}
    if (metadata["config"].get("memory") or {}).get("critic"):
        metadata["config"]["memory"]["critic"] = None
    level = metadata["world_spec"]["level"]
    data = f"walks in the level '{level}': this model knows it and no other"
    data = "walks in levels from seeds, of which it is shown none again" if level == "procedural" else data
    notes = {"trained": f"{_told(order.run)}, on {order.hardware}", "data": data}
    if order.bits != 16:
        halves |= pack({n: x for n, x in halves.items() if _learnt(n, x)}, bits=order.bits)
    files.save(order.out, halves, metadata=metadata | {"notes": notes})
    print(f"{order.out}: {order.out.stat().st_size / 1e6:.1f} MB; {notes['trained']}")


def _unused(metadata: dict[str, Any]) -> tuple[str, ...]:
    """Beginnings of the names of tensors that such a system never reads: pictures to begin from, of one that
    dreams nothing, and their depths, of one that has no memory of places."""
    generates = system_class(metadata["system"]).generates
    if not generates:
        return ("world_spec.",)
    return ("world_spec.depths",) if generates == "frames" and "memory" not in metadata["config"] else ()


def _write_alias(order: Release, metadata: dict[str, Any]) -> None:
    """A file without tensors; UserError unless those of `alias_of` fit."""
    tensors, lender = files.read(locate(order.alias_of))
    config = from_json(config_class(metadata["system"]), metadata["config"])
    files.fill(config.build(), tensors, source=f"'{order.alias_of}'")
    theirs = {name: lender[name] for name in ("step", "notes", "world_spec")}
    theirs["notes"] = {"weights": f"those of {order.alias_of}"} | theirs["notes"]
    files.save(order.out, {}, metadata=metadata | theirs | {"alias_of": order.alias_of})
    print(f"{order.out}: the weights of {order.alias_of}")


def _half(name: str, tensor: Tensor) -> Tensor:
    """Half precision for weights; pictures, poses, means and scales stay as they are."""
    exact = name.endswith((".mean", ".scale")) or name.startswith("world_spec.")
    return tensor if exact or tensor.dtype != torch.float32 else tensor.half()


def _learnt(name: str, tensor: Tensor) -> bool:
    """Whether a tensor is of a network, which has learnt to bear noise; linear codes have not."""
    linear = name.endswith(".components") or name.startswith("world_spec.")
    return tensor.dtype == torch.float16 and not linear


def _decoder(tensors: dict[str, Tensor], other: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    code = (".mean", ".components", ".scale")
    for name in (name for name in tensors if name.startswith("codec.") and name.endswith(code)):
        if name not in other or not torch.equal(tensors[name], other[name]):
            raise UserError(f"'{source}' has another encoder ('{name}' differs): its decoder does not fit")
    learnt = {name for name in other if name.startswith("codec.") and not name.endswith(code)}
    return {name: other[name] for name in learnt & set(tensors)}


def _told(folder: Path) -> str:
    """Steps and minutes of a run, and before it of the runs that it started from, the first one first."""
    run = json.loads((folder / "config.json").read_text())
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    own = f"{rows[-1]['step']:,} steps of {run['batch']} clips in {_minutes(rows, run):.0f} minutes"
    if not run["start"]:
        return own
    start = Path(run["start"])
    return f"{_told(start) if (start / 'log.jsonl').exists() else f'weights called {start.name}'}, then {own}"


def _minutes(rows: list[dict[str, float]], run: dict[str, int]) -> float:
    """Minutes of training, from the rows of the run's own log."""
    seconds, before = 0.0, 0.0
    for row in rows:
        seconds += max(0, row["step"] - before) * run["batch"] * run["frames"] / row["frames_per_second"]
        before = row["step"]
    return seconds / 60


if __name__ == "__main__":
    export_release(tyro.cli(Release))
