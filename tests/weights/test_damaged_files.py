"""Weight files that lie: whatever their metadata and tensors say, one sentence, soon and in little memory."""

import json
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from damage import Verdicts, bounded_memory, damaged
from torch import Tensor
from toy import toy_system, with_map

from dreamwalk.backbones.stdit import STDiTConfig
from dreamwalk.cli import main
from dreamwalk.clip import Clip
from dreamwalk.codecs.critic import CriticConfig
from dreamwalk.codecs.kl_autoencoder import kl_tiny
from dreamwalk.codecs.vit import vit_tiny
from dreamwalk.errors import UserError
from dreamwalk.systems import inverse, moviegen, nextframe
from dreamwalk.systems import open as opening
from dreamwalk.systems.autoencode import AutoencodeConfig
from dreamwalk.systems.forcing import ForcingConfig
from dreamwalk.systems.interactive import Interactive
from dreamwalk.systems.open import load, meta_system
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json
from dreamwalk.weights.quantized import pack

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts pages as Linux does"),
    pytest.mark.filterwarnings("ignore:Initializing zero-element"),
]
STDIT = STDiTConfig(channels=4, grid=(4, 6), width=16, depth=2, heads=2)
CONFIGS: dict[str, Any] = {
    "nextframe": with_map(nextframe.tiny()),
    "forcing": ForcingConfig(
        codec=vit_tiny(), backbone=STDIT, actions=7, action_layers=1, steps=4, spacing="ddim", window=3
    ),
    "moviegen": moviegen.tiny(),
    "autoencode": AutoencodeConfig(codec=kl_tiny(), critic=CriticConfig(width=8, levels=2)),
    "inverse": inverse.InverseConfig(buttons=3, axes=2, width=8),
}
Tensors = dict[str, Tensor]


FIELDS = {
    "nextframe": ("config.steps", "1 to 64"),
    "forcing": ("config.window", "1 to 16777216"),
    "moviegen": ("config.backbone.cond_channels", "0 to 16777216"),
    "inverse": ("config.width", "1 to 16777216"),
    "autoencode": ("config.codec.channels", "1 to 16777216"),
}
"""A field of each, and from where to where it goes."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small work is quicker so."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def contents(name: str) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and metadata of a small weight file of a system."""
    torch.manual_seed(0)
    system = CONFIGS[name].build()
    tensors, metadata = dict(system.state_dict()), {"system": name, "config": to_json(system.config)}
    if isinstance(system, Interactive):
        world_spec = toy_system().world_spec
        assert world_spec is not None
        (h, w), (_, down, across) = system.config.backbone.grid, system.codec.stride
        starts, described = replace(world_spec, starts=world_spec.starts[:, : h * down, : w * across]).pack()
        tensors, metadata = tensors | starts, metadata | {"world_spec": described}
    return tensors, metadata | {"notes": {"data": "none"}}


def write(path: Path, tensors: Tensors, metadata: dict[str, Any]) -> None:
    """As `files.save`, whatever the metadata say."""
    strings = {"format": files.FORMAT} | {name: json.dumps(value) for name, value in metadata.items()}
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(whole, path, metadata=strings)


def walk(path: Path) -> None:
    """Open a file and dream one frame of it, where it dreams frame by frame."""
    system = load(path)
    if not isinstance(system, Interactive) or system.world_spec is None:
        return
    world_spec, size = system.world_spec, system.config.actions
    start = Clip(
        video=torch.from_numpy(world_spec.starts[:1].copy()).permute(0, 3, 1, 2)[None],
        actions=torch.zeros(1, 1, size),
        world_from_camera=torch.from_numpy(world_spec.poses[:1])[None],
        intrinsics=torch.from_numpy(world_spec.intrinsics)[None, None],
    )
    with torch.inference_mode():
        latents = system.advance(system.begin(start), torch.zeros(1, size))
        assert system.codec.decode(latents).isfinite().all()


@pytest.mark.parametrize("name", list(CONFIGS))
def test_every_field_of_the_metadata(name: str, tmp_path: Path) -> None:
    tensors, metadata = contents(name)
    path, verdicts = tmp_path / "w.safetensors", Verdicts()
    write(path, tensors, metadata)
    walk(path)
    with bounded_memory():
        for label, wrong in damaged(metadata, values=5):
            if isinstance(wrong, dict):
                write(path, tensors, wrong)
                verdicts.read(label, lambda: walk(path))
    assert not verdicts.faults
    assert len(verdicts.refused) > 30 and len(verdicts.refused) > 2 * len(verdicts.right)
    assert not [sentence for sentence in verdicts.refused.values() if str(path) not in sentence]
    field, bounds = FIELDS[name]
    assert f"{field} must be a whole number from {bounds}, got -1" in verdicts.refused[f"{field} = -1"]


@pytest.mark.parametrize(
    ("name", "field", "sentence"),
    [
        ("nextframe", "backbone.depth", "asks for more than the"),
        ("forcing", "action_layers", "asks for more than the"),
        ("moviegen", "backbone.double_blocks", "asks for more than the"),
        ("autoencode", "codec.blocks", "asks for more than the"),
        ("nextframe", "actions", "has 'actions.mlp.0.weight' of shape (64, 7), not (64, 16777216)"),
        ("nextframe", "steps", "config.steps must be a whole number from 1 to 64, got 16777216"),
        ("nextframe", "window", "GiB of memory, and"),
        ("moviegen", "backbone.width", "does not fit together"),
    ],
)
def test_sizes_are_held_against_what_the_file_holds(
    name: str, field: str, sentence: str, tmp_path: Path
) -> None:
    """The largest number that any size may be."""
    tensors, metadata = contents(name)
    at = metadata["config"]
    for key in field.split(".")[:-1]:
        at = at[key]
    at[field.split(".")[-1]] = 2**24
    write(tmp_path / "w.safetensors", tensors, metadata)
    began = time.monotonic()
    with bounded_memory(), pytest.raises(UserError) as refusal:
        (meta_system if name == "moviegen" else load)(tmp_path / "w.safetensors")
    assert sentence in str(refusal.value) and time.monotonic() - began < 20


TEXTS = ["", "{", "[" * 100_000, "nul", '"x', "1" * 5000, "\ud800", "[1,2]", "NaN", "3"]


@pytest.mark.parametrize("name", ["system", "config", "world_spec", "notes"])
def test_metadata_that_is_no_json_or_another_kind(name: str, tmp_path: Path) -> None:
    tensors, metadata = contents("nextframe")
    path, verdicts = tmp_path / "w.safetensors", Verdicts()
    whole = {key: json.dumps(value) for key, value in metadata.items()} | {"format": files.FORMAT}
    for number, text in enumerate(TEXTS):
        text = text.encode(errors="replace").decode()
        safetensors.torch.save_file(tensors, path, metadata=whole | {name: text})
        verdicts.read(str(number), lambda: load(path))
    assert not verdicts.faults and len(verdicts.refused) == len(TEXTS)
    assert f"the metadata '{name}' is not valid JSON" in verdicts.refused["1"]


def _tensor_damage(tensors: Tensors) -> dict[str, Tensors]:
    name = "backbone.embed.weight"
    others: dict[str, Tensor | None] = {
        "missing": None,
        "shape": torch.zeros(3, 3),
        "scalar": torch.zeros(()),
        "empty": torch.zeros(0, 16),
        "transposed": tensors[name].T,
        "whole numbers": tensors[name].long(),
        "bits": tensors[name] > 0,
    }
    made = {label: {**tensors, name: other} for label, other in others.items() if other is not None}
    made["missing"] = {key: tensor for key, tensor in tensors.items() if key != name}
    made["extra"] = {**tensors, "backbone.blocks.9.norm": torch.zeros(4)}
    made["a scale for nothing"] = {**tensors, "x:scale": torch.zeros(4)}
    made["too few scales"] = {**tensors, f"{name}:scale": torch.ones(3)}
    made["scales of a vector"] = {**tensors, "backbone.embed.bias:scale": torch.ones(64)}
    for part, wrong in (("starts", torch.zeros(0, 32, 32, 3)), ("poses", torch.full((2, 4, 4), torch.nan))):
        made[f"{part} gone"] = {k: v for k, v in tensors.items() if k != f"world_spec.{part}"}
        made[f"{part} wrong"] = {**tensors, f"world_spec.{part}": wrong}
    made["starts of another size"] = {**tensors, "world_spec.starts": torch.zeros(2, 16, 16, 3).byte()}
    return made


def test_every_kind_of_wrong_tensor(tmp_path: Path) -> None:
    tensors, metadata = contents("nextframe")
    path, verdicts = tmp_path / "w.safetensors", Verdicts()
    for label, wrong in _tensor_damage(tensors).items():
        write(path, wrong, metadata)
        verdicts.read(label, lambda: walk(path))
    assert not verdicts.faults
    assert verdicts.right == ["a scale for nothing"]
    assert "lacks 'backbone.embed.weight'" in verdicts.refused["missing"]
    assert "also has 'backbone.blocks.9.norm'" in verdicts.refused["extra"]
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        write(
            path,
            {
                k: v.to(dtype) if v.is_floating_point() and "world_spec" not in k else v
                for k, v in tensors.items()
            },
            metadata,
        )
        walk(path)
    write(path, pack(tensors), metadata)
    with pytest.raises(UserError, match="world_spec"):
        write(path, {**tensors, "world_spec.poses": tensors["world_spec.poses"].half()}, metadata)
        walk(path)


def _byte_damage(whole: bytes) -> dict[str, bytes]:
    size = struct.unpack("<Q", whole[:8])[0]
    header, body = whole[8 : 8 + size], whole[8 + size :]
    made = {f"header of {n}": struct.pack("<Q", n) + whole[8:] for n in (0, 1, size - 1, size + 1, 2**62)}
    made |= {f"first {n}": whole[:n] for n in (0, 7, 8, 9, size, size + 8, len(whole) - 1)}
    made["more at the end"] = whole + b"\0" * 8
    made["zeros"] = bytes(len(whole))
    for label, old, new in (
        ("offsets", b'"data_offsets":[', b'"data_offsets":[9'),
        ("shape", b'"shape":[', b'"shape":[99'),
        ("type", b'"F32"', b'"F99"'),
        ("huge shape", b'"shape":[', b'"shape":[99999999999999999999'),
    ):
        lie = header.replace(old, new, 1)
        made[label] = struct.pack("<Q", len(lie)) + lie + body
    return made


def test_every_kind_of_broken_file(tmp_path: Path) -> None:
    tensors, metadata = contents("inverse")
    path, verdicts = tmp_path / "w.safetensors", Verdicts()
    write(path, tensors, metadata)
    with bounded_memory():
        for label, data in _byte_damage(path.read_bytes()).items():
            path.write_bytes(data)
            verdicts.read(label, lambda: load(path))
    assert not verdicts.faults and not verdicts.right


@pytest.mark.parametrize("lender", ["hf://someone/else", "../inverse.doom", "nextframe", ["x"], {}, 3, None])
def test_only_shipped_weights_can_be_named(
    lender: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those of a file beside it either, nor of the hub, which is not asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(opening, "_fetch", lambda name: pytest.fail(f"asked the hub for {name}"))
    write(tmp_path / "nextframe", *contents("nextframe"))
    write(tmp_path / "w.safetensors", {}, contents("nextframe")[1] | {"alias_of": lender})
    for read in (load, lambda path: opening.init_from(CONFIGS["nextframe"].build(), path)):
        with pytest.raises(UserError, match="only those that come with dreamwalk may be named"):
            read(tmp_path / "w.safetensors")
    assert load("nextframe.doom").about["alias_of"] in opening.shipped()  # type: ignore[index]


@pytest.mark.parametrize("verb", ["play", "sample", "evaluate"])
def test_through_the_command_line(
    verb: str, tmp_path: Path, toy_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"sample": ["--out", str(tmp_path / "o.mp4")], "evaluate": ["--data", str(toy_data)]}
    path, (tensors, metadata) = tmp_path / "w.safetensors", contents("nextframe")
    metadata["config"]["backbone"]["depth"] = 10**9
    lies: list[Callable[[], None]] = [
        lambda: write(path, tensors, metadata),
        lambda: write(path, tensors, metadata | {"system": ["moviegen"]}),
        lambda: safetensors.torch.save_file(tensors, path, metadata={"format": files.FORMAT, "system": "{"}),
    ]
    for lie in lies:
        lie()
        with bounded_memory(), pytest.raises(SystemExit) as stop:
            main([verb, str(path), *flags.get(verb, [])])
        assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1
