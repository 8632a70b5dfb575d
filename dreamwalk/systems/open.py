"""Open a system from what names it: shipped weights, a weight file, a run folder, or one on the hub."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import torch

from dreamwalk.codecs.kl_autoencoder import KLCodec
from dreamwalk.codecs.tae import TAECodec, inflate
from dreamwalk.device.budget import GIB, free_bytes
from dreamwalk.errors import UserError
from dreamwalk.rollout.dream import Dream, WorldSpec
from dreamwalk.systems.artokens import ArTokens
from dreamwalk.systems.autoencode import Autoencode
from dreamwalk.systems.clip_generator import ClipGenerator
from dreamwalk.systems.interactive import Interactive
from dreamwalk.systems.inverse import Inverse
from dreamwalk.systems.system import System, SystemConfig
from dreamwalk.systems.walkable import Walkable
from dreamwalk.validation import conform, mending
from dreamwalk.weights import files
from dreamwalk.weights.config import from_json

SYSTEMS = {
    "artokens": "ArTokens",
    "autoencode": "Autoencode",
    "forcing": "Forcing",
    "inverse": "Inverse",
    "moviegen": "Moviegen",
    "nextframe": "NextFrame",
    "nextscale": "NextScale",
    "voyager": "Voyager",
    "worldmem": "WorldMem",
}
"""Every system: the module of this package, and its class there."""
LARGE = "clips", "scenes"
"""What systems generate whose weights may be larger than memory."""
PRETRAINED = Path(__file__).parent.parent / "pretrained"


def system_class(name: str) -> type[System]:
    """The class of a system, by its name in `SYSTEMS`."""
    return getattr(import_module(f"dreamwalk.systems.{name}"), SYSTEMS[name])


def config_class(name: str) -> type[SystemConfig]:
    """The class of its config."""
    return get_type_hints(system_class(name))["config"]


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
    raise _no_weights(text, shipped(), f"shipped are {', '.join(shipped()) or 'none'}")


def _no_weights(name: str, choices: list[str], listed: str) -> UserError:
    # Nearest of all that ships: what shows nothing is not mistaken for what happens to be spelt like it.
    close = difflib.get_close_matches(name, sorted({*choices, *shipped()}), n=1, cutoff=0.6)
    hint = f"did you mean '{close[0]}'? " if close and close[0] in choices else ""
    return UserError(f"there are no weights called '{name}', and no such file or folder: {hint}{listed}")


def require_generative(name: str, verb: str, *more: str) -> type[System]:
    """The class of a system that generates something to see; UserError, with what ships, for another name."""
    known = name.startswith("hf://") or Path(name).exists() or name in shipped()
    if known and (kind := kind_of(name)).generates:
        return kind
    names = [*more, *(each for each in shipped() if kind_of(each).generates)]
    listed = f"to {verb} there are {', '.join(names)}"
    if not known:
        raise _no_weights(name, names, listed)
    raise UserError(f"'{name}' is of the system {kind.name}, which dreams nothing to look at: {listed}")


def kind_of(name: str | Path) -> type[System]:
    """The class of the system that a name, a file or a folder holds; UserErrors as of `load`."""
    return system_class(_described(locate(name)).system)


def load(name: str | Path) -> System:
    """A system with its weights, ready to dream, on the CPU and in evaluation mode.

    `name`: shipped weights (`nextframe.doom`), a .safetensors file that dreamwalk wrote, a run folder, or
    `hf://owner/repository`. UserError says in one sentence what is wrong with anything else.
    """
    made = load_mmap(name)
    if made.generates in LARGE:  # of which nothing has been read yet
        _require_memory(made, f"'{name}'")
    files.align_(made)
    return made


def dream(
    system: System | Path | str = "nextframe.doom", seed: int | None = None, render_mode: str | None = None
) -> Dream:
    """A dream for `gymnasium.make("dreamwalk/Dream-v0", system=...)`: of a name, or of what `load` gave."""
    made = load(system) if isinstance(system, str | Path) else system
    if not isinstance(made, Walkable):
        raise UserError(f"'{system!s:.60}' cannot be walked in: it does not go on frame after frame")
    return made.world(seed=seed, render_mode=render_mode)


def load_mmap(name: str | Path) -> System:
    """The system of `load`; weights of one of clips stay in the file until they are used or moved.

    What the file says of itself is held against the tensors that it has, and against memory, before any is
    read.
    """
    found = _described(locate(name))
    made, source = found.on_meta(), f"'{found.path}'"
    if made.generates in LARGE:  # large ones are not to be held twice
        tensors = files.read(found.lender)[0]
        files.assign_(made, tensors, source=source)
    else:
        _require_memory(made, source)
        tensors, made = files.read(found.lender)[0], found.config.build()
        files.fill(made, tensors, source=source)
    made.about = found.metadata
    if made.generates and "world_spec" in found.metadata:
        for part in (part for part in tensors if part.startswith("world_spec.")):
            files.check_finite(part, tensors[part], source=source)
        with mending(files.MEND):
            where = f"in {source}, world_spec"
            made.world_spec = WorldSpec.unpack(tensors, found.metadata["world_spec"], where=where)
        made.check_world(made.world_spec, source)
    return made.eval()


def meta_system(name: str | Path) -> ClipGenerator:
    """A system of clips on the meta device; UserErrors as of `load`."""
    made = _described(locate(name)).on_meta()
    assert isinstance(made, ClipGenerator)
    return made


@dataclass(frozen=True)
class Described:
    """What a weight file says of itself, before its tensors are read."""

    path: Path
    lender: Path
    """The file that has the tensors: the same, or shipped weights that it names."""
    system: str
    config: SystemConfig
    metadata: dict[str, Any]

    def on_meta(self) -> System:
        """The system on the meta device; UserError with the first tensor that the file lacks, that has
        another shape, or that is too much."""
        shapes, source = files.header(self.lender).shapes, f"'{self.path}'"
        made = files.on_meta(self.config.build, shapes, source=source)
        files.check_shapes(made, shapes, source=source)
        if self.lender == self.path:  # what lends its weights may have more, such as another memory
            files.check_no_more(made, shapes, source=source, beside="world_spec.")
        return made


def _described(path: Path) -> Described:
    about, source = files.metadata(path), f"in '{path}'"
    lender = _lender(path, about)
    with mending(files.MEND):
        system = conform(str, about.get("system"), f"{source}, system")
        if system not in SYSTEMS:
            raise UserError(f"'{path}' is of the system '{system:.60}', which this version does not know")
        config = from_json(config_class(system), about.get("config"), where=f"{source}, config")
        conform(dict[str, str], about.get("notes", {}), f"{source}, notes")
    return Described(path, lender, system, config, about)


def _lender(path: Path, about: dict[str, Any]) -> Path:
    """Where the tensors of a file are: an alias names weights that come with the package, and
    no others, or a file could open others and go to the network."""
    if "alias_of" not in about:
        return path
    if about["alias_of"] not in shipped():
        raise UserError(
            f"'{path}' is an alias of other weights, and only those that come with dreamwalk may be "
            f"named ({', '.join(shipped())}): fetch the file that has them"
        )
    return PRETRAINED / f"{about['alias_of']}.safetensors"


def _require_memory(system: System, source: str) -> None:
    """UserError unless there is memory for the weights and for what sampling keeps."""
    size = sum(tensor.nbytes for tensor in (*system.parameters(), *system.buffers())) + system.working_bytes
    free = free_bytes(torch.device("cpu"))
    if free is not None and size > free:
        raise UserError(
            f"{source} takes {size / GIB:.1f} GiB of memory, and {free / GIB:.1f} are free: open it on a "
            "larger machine"
        )


def load_inverse(name: str) -> Inverse | None:
    """The inverse-dynamics model called `name`, None for an empty name; UserError for another system."""
    if not name:
        return None
    inverse = load(name)
    if not isinstance(inverse, Inverse):
        raise UserError(f"'{name}' is of the system {inverse.name}: actions are read by one of inverse")
    return inverse


def load_codec(system: System, name: str | Path) -> None:
    """Give `system` the trained codec of another file, which must be of the same config."""
    if not isinstance(system, Interactive | ArTokens | ClipGenerator):
        raise UserError(f"the system {system.name} trains its own codec: leave out `--codec`")
    other = load(name)
    if not isinstance(other, Autoencode | Interactive | ArTokens | ClipGenerator):
        raise UserError(f"'{name}' is of the system {other.name}, which has no codec to take")
    theirs, ours = other.codec.config, system.codec.config
    if theirs != ours:
        raise UserError(f"the codec of '{name}' is {theirs}, but this run is for {ours}")
    system.codec.load_state_dict(other.codec.state_dict())


def init_from(system: System, name: str | Path) -> None:
    """Start `system` from the weights of another file of the same shapes; parts that it lacks stay fresh.

    A TAE also starts from the image autoencoder that it inflates. What is shown something beside its latents
    starts from what is not, and positions are interpolated.
    """
    codec = system.codec if isinstance(system, Autoencode) else None
    if isinstance(codec, TAECodec):
        image = load(name)
        if isinstance(image, Autoencode) and isinstance(image.codec, KLCodec):
            return inflate(codec, image.codec)
    about = files.metadata(path := locate(name))
    tensors = dict(system.adapt_weights(files.read(_lender(path, about))[0], about.get("config") or {}))
    parts = {_part(name) for name in tensors}
    fresh = {k: v for k, v in system.state_dict().items() if _part(k) not in parts}
    files.fill(system, fresh | tensors, source=f"'{name}'")


def _part(tensor: str) -> str:
    """Of a system, or of its memory, to which a tensor belongs."""
    return ".".join(tensor.split(".")[: 2 if tensor.startswith(("memory.", "backbone.memory.")) else 1])


def _fetch(repository: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(repository, "weights.safetensors"))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(f"hf://{repository} could not be fetched: {error}") from None
