"""Open a system from what names it: shipped weights, a weight file, a run folder, or one on the hub."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dreamwalk.backbones.clip_backbone import widened
from dreamwalk.backbones.crossdit import CrossDiTConfig, grown
from dreamwalk.codecs.kl_autoencoder import KLCodec
from dreamwalk.codecs.tae import TAECodec, inflate
from dreamwalk.device.budget import GIB, free_bytes
from dreamwalk.errors import UserError
from dreamwalk.rollout.dream import Dream, WorldSpec
from dreamwalk.systems.autoencode import Autoencode, AutoencodeConfig
from dreamwalk.systems.forcing import Forcing, ForcingConfig
from dreamwalk.systems.interactive import Interactive
from dreamwalk.systems.inverse import Inverse, InverseConfig
from dreamwalk.systems.moviegen import Moviegen, MoviegenConfig
from dreamwalk.systems.nextframe import NextFrame, NextFrameConfig
from dreamwalk.validation import conform, mending
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
    return system is None or system is Moviegen or issubclass(system, Interactive)


def kind_of(name: str | Path) -> str:
    """The system that a name, a file or a folder holds; UserErrors as of `load`."""
    return _described(locate(name)).system


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
    made = load_mmap(name)
    if isinstance(made, Moviegen):  # of which nothing has been read yet
        _require_memory(made, f"'{name}'")
    files.align_(made)
    return made


def dream(system: Any = "nextframe.doom", seed: int | None = None, render_mode: str | None = None) -> Dream:
    """A dream for `gymnasium.make("dreamwalk/Dream-v0", system=...)`: of a name, or of what `load` gave."""
    made = load(system) if isinstance(system, str | Path) else system
    if not isinstance(made, Interactive):
        raise UserError(f"'{system!s:.60}' cannot be walked in: it does not go on frame after frame")
    return made.world(seed=seed, render_mode=render_mode)


def load_mmap(name: str | Path) -> Trainable:
    """The system of `load`; weights of one of clips stay in the file until they are used or moved.

    What the file says of itself is held against the tensors that it has, and against memory, before any is
    read.
    """
    found = _described(locate(name))
    made, source = found.on_meta(), f"'{found.path}'"
    if isinstance(made, Moviegen):  # large ones are not to be held twice
        tensors = files.read(found.lender)[0]
        files.assign_(made, tensors, source=source)
    else:
        _require_memory(made, source)
        tensors, made = files.read(found.lender)[0], build(found.config)
        files.fill(made, tensors, source=source)
    made.about = found.metadata
    if isinstance(made, Interactive | Moviegen) and "walkable" in found.metadata:
        for part in (part for part in tensors if part.startswith("walkable.")):
            files.check_finite(part, tensors[part], source=source)
        with mending(files.MEND):
            where = f"in {source}, walkable"
            made.walkable = WorldSpec.unpack(tensors, found.metadata["walkable"], where=where)
        _check_starts(made, made.walkable, source)
    return made.eval()


def meta_system(name: str | Path) -> Moviegen:
    """The outline of a system of clips that `load` opens; UserErrors as there."""
    made = _described(locate(name)).on_meta()
    assert isinstance(made, Moviegen)
    return made


@dataclass(frozen=True)
class Described:
    """What a weight file says of itself, before its tensors are read."""

    path: Path
    lender: Path
    """The file that has the tensors: the same, or shipped weights that it names."""
    system: str
    config: Config
    metadata: dict[str, Any]

    def on_meta(self) -> Trainable:
        """The system on the meta device; UserError with the first tensor that the file lacks, that has
        another shape, or that is too much."""
        shapes, source = files.header(self.lender).shapes, f"'{self.path}'"
        made = files.on_meta(lambda: build(self.config), shapes, source=source)
        files.check_shapes(made, shapes, source=source)
        files.check_no_more(made, shapes, source=source, beside="walkable.")
        return made


def _described(path: Path) -> Described:
    about, source = files.metadata(path), f"in '{path}'"
    lender = _lender(path, about)
    with mending(files.MEND):
        system = conform(str, about.get("system"), f"{source}, system")
        if system not in SYSTEMS:
            raise UserError(f"'{path}' is of the system '{system:.60}', which this version does not know")
        config = from_json(SYSTEMS[system][1], about.get("config"), where=f"{source}, config")
        conform(dict[str, str], about.get("notes", {}), f"{source}, notes")
    return Described(path, lender, system, config, about)


def _lender(path: Path, about: dict[str, Any]) -> Path:
    """Where the tensors of a file are: it may borrow them from weights that come with the package, and from
    no others, or a file could open others and go to the network."""
    if "borrows" not in about:
        return path
    if about["borrows"] not in shipped():
        raise UserError(
            f"'{path}' borrows the weights of another file, and only those that come with dreamwalk may be "
            f"borrowed ({', '.join(shipped())}): fetch the file that has them"
        )
    return PRETRAINED / f"{about['borrows']}.safetensors"


def _check_starts(system: Interactive | Moviegen, walkable: WorldSpec, source: str) -> None:
    """UserError unless a walk can begin from the starts of a file, and take its actions."""
    if isinstance(system, Moviegen):
        return
    config, (_, down, across) = system.config, system.codec.stride
    wanted = config.actions, (config.backbone.grid[0] * down, config.backbone.grid[1] * across)
    if (walkable.actions.size, walkable.starts.shape[1:3]) != wanted:
        (height, width), (down, across) = walkable.starts.shape[1:3], wanted[1]
        raise UserError(
            f"{source} has {walkable.actions.size} actions and starts of {height}x{width}, and its network "
            f"takes {wanted[0]} and {down}x{across}: {files.MEND}"
        )


def _require_memory(system: Trainable, source: str) -> None:
    """UserError unless there is memory for the weights and for what a walk keeps, or for a clip."""
    size = sum(tensor.nbytes for tensor in (*system.parameters(), *system.buffers()))
    if isinstance(system, Interactive):
        size += system.backbone.cache_bytes(system.config.window)
    if isinstance(system, Moviegen):
        size += 4 * 3 * system.config.frames * math.prod(system.config.size)
    free = free_bytes(torch.device("cpu"))
    if free is not None and size > free:
        raise UserError(
            f"{source} takes {size / GIB:.1f} GiB of memory, and {free / GIB:.1f} are free: open it on a "
            "larger machine"
        )


def load_examiner(name: str) -> Inverse | None:
    """The inverse-dynamics model called `name`, None for an empty name; UserError for another system."""
    if not name:
        return None
    examiner = load(name)
    if not isinstance(examiner, Inverse):
        raise UserError(f"'{name}' is of the system {examiner.name}: an examiner is of the system inverse")
    return examiner


def load_codec(system: Trainable, name: str | Path) -> None:
    """Give `system` the trained codec of another file, which must be of the same config."""
    if not isinstance(system, Interactive | Moviegen):
        raise UserError(f"the system {system.name} trains its own codec: leave out `--codec`")
    other = load(name)
    if not isinstance(other, Autoencode | Interactive | Moviegen):
        raise UserError(f"'{name}' is of the system {other.name}, which has no codec to take")
    if other.config.codec != system.config.codec:
        raise UserError(
            f"the codec of '{name}' is {other.config.codec}, but this run is for {system.config.codec}"
        )
    system.codec.load_state_dict(other.codec.state_dict())


def init_from(system: Trainable, name: str | Path) -> None:
    """Start `system` from the weights of another file of the same shapes; parts that it lacks stay fresh.

    A TAE also starts from the image autoencoder that it inflates. What is shown something beside its latents
    starts from what is not, and positions are interpolated.
    """
    codec = system.codec if isinstance(system, Autoencode) else None
    if isinstance(codec, TAECodec):
        image = load(name)
        if isinstance(image, Autoencode) and isinstance(image.codec, KLCodec):
            return inflate(codec, image.codec)
    tensors = files.read(_lender(path := locate(name), files.metadata(path)))[0]
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
