"""Open a system from what names it: shipped weights, a weight file, a run folder, or one on the hub."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamwalk.backbones.crossdit import CrossDiTConfig, grown
from dreamwalk.backbones.inputs import widened
from dreamwalk.codecs import KLCodec, TAECodec
from dreamwalk.codecs.tae import inflate
from dreamwalk.errors import UserError
from dreamwalk.rollout.dream import Dream, Walkable
from dreamwalk.rollout.dreaming import DreamingSystem
from dreamwalk.systems.autoencode import Autoencode, AutoencodeConfig
from dreamwalk.systems.forcing import Forcing, ForcingConfig
from dreamwalk.systems.inverse import Inverse, InverseConfig
from dreamwalk.systems.moviegen import Moviegen, MoviegenConfig
from dreamwalk.systems.nextframe import NextFrame, NextFrameConfig
from dreamwalk.weights import files
from dreamwalk.weights.config import from_json

Trainable = Autoencode | Inverse | NextFrame | Forcing | Moviegen
Config = AutoencodeConfig | InverseConfig | NextFrameConfig | ForcingConfig | MoviegenConfig
SYSTEMS: dict[str, tuple[Any, Any]] = {
    "autoencode": (Autoencode, AutoencodeConfig),
    "inverse": (Inverse, InverseConfig),
    "nextframe": (NextFrame, NextFrameConfig),
    "forcing": (Forcing, ForcingConfig),
    "moviegen": (Moviegen, MoviegenConfig),
}
PRETRAINED = Path(__file__).parent.parent / "pretrained"


def build(config: Config) -> Trainable:
    """The system that a config describes, with fresh weights."""
    return next(system(config) for system, kind in SYSTEMS.values() if isinstance(config, kind))


def shipped() -> list[str]:
    """Names of the weights that come with the package."""
    return sorted(path.stem for path in PRETRAINED.glob("*.safetensors"))


def locate(name: str | Path) -> Path:
    """The weight file that `name` means: a shipped name, a file, a run folder, or `hf://owner/repository`."""
    text, path = str(name), Path(name)
    if text.startswith("hf://"):
        return _fetch(text.removeprefix("hf://"))
    if path.is_dir():
        if (path / "weights.safetensors").is_file():
            return path / "weights.safetensors"
        raise UserError(f"'{path}' holds no weights.safetensors: it is written at a run's first checkpoint")
    if path.is_file():
        return path
    if text in shipped():
        return PRETRAINED / f"{text}.safetensors"
    close = difflib.get_close_matches(text, shipped(), n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'?" if close else f"shipped are: {', '.join(shipped()) or 'none'}"
    raise UserError(f"there are no weights called '{text}', and no such file or folder; {hint}")


def known(name: str | Path) -> bool:
    """Whether a name means weights: shipped ones, a file or a folder that is there, or some on the hub."""
    return str(name).startswith("hf://") or Path(name).exists() or str(name) in shipped()


def is_shown(kind: str) -> bool:
    """Whether a system dreams something to look at; of one that is not known, `load` says what is wrong."""
    system = SYSTEMS.get(kind, (None,))[0]
    return system is None or system is Moviegen or issubclass(system, DreamingSystem)


def kind_of(name: str | Path) -> str:
    """The system that a name, a file or a folder holds; UserErrors as of `load`."""
    with files.opened(locate(name), header=True) as file:
        return json.loads((file.metadata() or {}).get("system", '""'))


def is_of_clips(name: str | Path) -> bool:
    """Whether a name, a file or a folder holds a system that dreams whole clips."""
    try:
        return kind_of(name) == Moviegen.name
    except UserError:  # `load` says what is wrong
        return False


def load(name: str | Path) -> Trainable:
    """A system with its weights, ready to dream, on the CPU and in evaluation mode.

    `name`: shipped weights (`nextframe.doom`), a .safetensors file that dreamwalk wrote, a run folder, or
    `hf://owner/repository`. UserError says in one sentence what is wrong with anything else.
    """
    made = mapped(name)
    files.settle(made)
    return made


def dream(system: Any = "nextframe.doom", seed: int | None = None, render_mode: str | None = None) -> Dream:
    """A dream for `gymnasium.make("dreamwalk/Dream-v0", system=...)`: of a name, or of what `load` gave."""
    made = load(system) if isinstance(system, str | Path) else system
    if not isinstance(made, DreamingSystem):
        raise UserError(f"'{system!s:.60}' cannot be walked in: it does not go on frame after frame")
    return made.world(seed=seed, render_mode=render_mode)


def mapped(name: str | Path) -> Trainable:
    """The system of `load`; weights of one of clips stay in the file until they are used or moved."""
    path = locate(name)
    tensors, metadata = _read(path)
    if metadata.get("system") not in SYSTEMS:
        raise UserError(
            f"'{path}' is of the system '{metadata.get('system')}', which this version does not know"
        )
    system, kind = SYSTEMS[metadata["system"]]
    config = from_json(kind, metadata["config"])
    if system is Moviegen:  # large ones are not to be held twice
        made = outline(config)
        files.become(made, tensors, source=f"'{path}'")
    else:
        made = system(config)
        files.fill(made, tensors, source=f"'{path}'")
    made.about = metadata
    if isinstance(made, DreamingSystem | Moviegen) and "walkable" in metadata:
        for part in (part for part in tensors if part.startswith("walkable.")):
            files.check_finite(part, tensors[part], source=f"'{path}'")
        made.walkable = Walkable.unpack(tensors, metadata["walkable"])
    return made.eval()


def outline(config: MoviegenConfig) -> Moviegen:
    """A system of clips on the meta device: shapes and precisions, and no memory."""
    with torch.device("meta"):
        return Moviegen(config)


def outline_of(name: str | Path) -> Moviegen:
    """The outline of a system of clips that `load` opens; UserErrors as there."""
    return outline(from_json(MoviegenConfig, files.metadata(locate(name))["config"]))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file, which may borrow all its tensors from other weights by name."""
    tensors, metadata = files.read(path)
    if "borrows" in metadata:
        tensors = files.read(locate(metadata["borrows"]))[0]
    return tensors, metadata


def load_examiner(name: str) -> Inverse | None:
    """The inverse-dynamics model called `name`, None for an empty name; UserError for another system."""
    if not name:
        return None
    examiner = load(name)
    if not isinstance(examiner, Inverse):
        raise UserError(f"'{name}' is of the system {examiner.name}: an examiner is of the system inverse")
    return examiner


def take_codec(system: Trainable, name: str | Path) -> None:
    """Give `system` the trained codec of another file, which must be of the same config."""
    if not isinstance(system, DreamingSystem | Moviegen):
        raise UserError(f"the system {system.name} trains its own codec: leave out `--codec`")
    other = load(name)
    if not isinstance(other, Autoencode | DreamingSystem | Moviegen):
        raise UserError(f"'{name}' is of the system {other.name}, which has no codec to take")
    if other.config.codec != system.config.codec:
        raise UserError(
            f"the codec of '{name}' is {other.config.codec}, but this run is for {system.config.codec}"
        )
    system.codec.load_state_dict(other.codec.state_dict())


def fill_from(system: Trainable, name: str | Path) -> None:
    """Start `system` from the weights of another file of the same shapes; parts that it lacks stay fresh.

    A TAE also starts from the image autoencoder that it inflates. What is shown something beside its latents
    starts from what is not, and positions are interpolated.
    """
    codec = system.codec if isinstance(system, Autoencode) else None
    if isinstance(codec, TAECodec):
        image = load(name)
        if isinstance(image, Autoencode) and isinstance(image.codec, KLCodec):
            return inflate(codec, image.codec)
    tensors = _read(locate(name))[0]
    if isinstance(system, Moviegen):
        backbone = system.config.backbone
        tensors = widened(tensors, backbone)
        if isinstance(backbone, CrossDiTConfig):
            tensors = grown(tensors, backbone.extent)
    parts = {tensor.split(".")[0] for tensor in tensors}
    fresh = {k: v for k, v in system.state_dict().items() if k.split(".")[0] not in parts}
    files.fill(system, fresh | tensors, source=f"'{name}'")


def _fetch(repository: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(repository, "weights.safetensors"))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(f"hf://{repository} could not be fetched: {error}") from None
