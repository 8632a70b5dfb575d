"""Weight files: safetensors with the config in the metadata: a file opens itself. No other kind is read."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from dreamwalk.errors import UserError, atomic, brief, writing
from dreamwalk.validation import mending, parse_json
from dreamwalk.weights.quantized import unpack, unpacked_shapes

FORMAT = "dreamwalk/1"
ALIGNED = 64
"""Bytes."""
PER_TENSOR = 2
"""Parameters that one tensor of a file can become, where a published one is several of ours."""
MEND = "fetch it again, or train it with this version"
Shapes = Mapping[str, tuple[int, ...]]
Built = TypeVar("Built", bound=nn.Module)


class Header(NamedTuple):
    """What a file says of itself, read without its tensors."""

    shapes: dict[str, tuple[int, ...]]
    """Of the tensors that `read` gives."""
    metadata: dict[str, Any]


def save(path: Path | str, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able metadata; an older file is replaced only when the new one is whole.

    UserError where it cannot be written.
    """
    path = Path(path)
    strings = {"format": FORMAT} | {name: json.dumps(value) for name, value in metadata.items()}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with writing(path), atomic(path) as partial:
        partial.touch()
        mode = partial.stat().st_mode  # what umask says; safetensors lets nobody else read
        try:
            safetensors.torch.save_file(contiguous, partial, metadata=strings)
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from None
        partial.chmod(mode)


def check_name(path: Path) -> None:
    """UserError unless weights can be written under this name; worth asking before long work."""
    if path.suffix != ".safetensors":
        raise UserError(f"weights are written as .safetensors: name it '{path.with_suffix('')}.safetensors'")


def read(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file that `save` wrote; UserError with one sentence for anything else.

    Tensors that are not packed are read from the disk when they are first used.
    """
    with opened(path) as file:
        about = _about(file, path)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return unpack(tensors, source=f"'{path}'"), about


def header(path: Path | str) -> Header:
    """Of a file that `save` wrote; UserErrors as of `read`."""
    with opened(path, header=True) as file:
        return Header(unpacked_shapes(_shapes(file)), _about(file, path))


def metadata(path: Path | str) -> dict[str, Any]:
    """Of a file that `save` wrote; UserErrors as of `read`."""
    return header(path).metadata


def _about(file: Any, path: Path | str) -> dict[str, Any]:
    strings = file.metadata() or {}
    if strings.get("format") != FORMAT:
        raise UserError(f"'{path}' was not written by dreamwalk, so it does not say which system it is")
    given = {name: value for name, value in strings.items() if name != "format"}
    with mending(MEND):
        return {k: parse_json(v, f"in '{path}', the metadata '{k:.60}'") for k, v in given.items()}


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """Tensors of a safetensors file that others wrote, under their names; UserErrors as of `read`."""
    with opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_shapes(path: Path | str) -> dict[str, tuple[int, ...]]:
    """The shapes of what `read_tensors` gives."""
    with opened(path, header=True) as file:
        return _shapes(file)


def _shapes(file: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


@contextmanager
def opened(path: Path | str, *, header: bool = False) -> Iterator[Any]:
    """A safetensors file to read from; whatever is wrong with it becomes a UserError of one sentence.

    With `header` only names, shapes and metadata are asked for, which needs no memory for the tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no weight file at '{path}'")
    if path.suffix != ".safetensors":
        raise UserError(
            f"'{path}' is not a .safetensors file; other formats can run code when loaded, so none is read"
        )
    try:
        with safetensors.safe_open(path, framework="np" if header else "pt") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise UserError(
            f"'{path}' is damaged or not a safetensors file ({error}): fetch or train it again"
        ) from None
    except RuntimeError as error:  # of torch, when a file is larger than what memory and swap can ever hold
        if "unable to mmap" not in str(error):
            raise
        size = path.stat().st_size / 2**30
        raise UserError(
            f"'{path}' of {size:.1f} GiB is larger than memory and swap of this machine: import it in "
            "bfloat16, or add swap"
        ) from None


def on_meta(build: Callable[[], Built], shapes: Shapes, *, source: str) -> Built:
    """What `build` makes, on the meta device: shapes and precisions, and no memory.

    The sizes come from a file, of which `shapes` is all that it holds: UserError as soon as there are more
    parameters than these can fill, and for sizes of which no module can be made.
    """
    thread, count = threading.get_ident(), 0

    def counted(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > PER_TENSOR * len(shapes):
            raise UserError(f"it asks for more than the {len(shapes)} tensors that there are")

    hook = register_module_parameter_registration_hook(counted)  # the only one that sees every layer
    try:
        with torch.device("meta"):
            return build()
    except (ValueError, IndexError, OverflowError, RuntimeError) as error:  # what sizes alone can bring about
        raise UserError(
            f"{source} has a config of which no network can be made ({brief(error)}): {MEND}"
        ) from error
    finally:
        hook.remove()


def check_shapes(module: nn.Module, shapes: Shapes, *, source: str) -> None:
    """UserError with the first name or shape of a module, which may be an outline, that does not fit."""
    for name, tensor in module.state_dict().items():
        _fits(name, tensor, shapes.get(name), source=source)


def check_no_more(module: nn.Module, shapes: Shapes, *, source: str, beside: str = "") -> None:
    """UserError with a tensor that a module has not, unless its name begins with `beside`."""
    others = sorted(set(shapes) - set(module.state_dict()))
    if others := [name for name in others if not (beside and name.startswith(beside))]:
        raise UserError(f"{source} also has '{others[0]}', which its config does not describe: {MEND}")


def fill(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copy tensors into a module, one after another; UserError with the first name or shape that does not
    fit, and with the first tensor that is not finite."""
    for _, tensor, given in _matched(module, tensors, source=source):
        tensor.copy_(given)


def assign_(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Give a module on the meta device these tensors for its own, in its precision; no copy is made of what
    has it.

    UserErrors as of `fill`.
    """
    own = {name: given.to(t.dtype) for name, t, given in _matched(module, tensors, source=source)}
    module.load_state_dict(own, assign=True)


def align_(module: nn.Module) -> None:
    """Copy weights that lie in a file, so that they are aligned as torch aligns its own: those that are not
    lead to other last bits on the CPU."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.data_ptr() % ALIGNED:
            tensor.data = tensor.data.clone()


def _matched(
    module: nn.Module, tensors: Mapping[str, Tensor], *, source: str
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each tensor of a module, by name, and the one that is given for it."""
    for name, tensor in module.state_dict().items():
        given = tensors.get(name)
        _fits(name, tensor, None if given is None else tuple(given.shape), source=source)
        assert given is not None
        if given.is_floating_point() != tensor.is_floating_point():
            raise UserError(f"{source} has '{name}' as {given.dtype}, not as {tensor.dtype}: {MEND}")
        check_finite(name, given, source=source)
        yield name, tensor, given


def check_finite(name: str, tensor: Tensor, *, source: str) -> None:
    """UserError when a tensor has numbers that are none: what is dreamt with it would be black."""
    if not tensor.is_floating_point() or not tensor.numel():
        return
    wide = tensor if tensor.dtype.itemsize > 1 else tensor.float()
    if math.isfinite(wide.sum()) or bool(wide.isfinite().all()):  # a sum of its own dtype copies nothing
        return
    broken = int((~wide.isfinite()).sum())
    raise UserError(
        f"{source} has nan or inf in '{name}' ({broken} of {tensor.numel()} numbers): its training went "
        "wrong or the file is damaged, so fetch or train it again"
    )


def _fits(name: str, tensor: Tensor, shape: tuple[int, ...] | None, *, source: str) -> None:
    if shape is None:
        raise UserError(f"{source} lacks '{name}': it belongs to another system or version")
    if shape != tuple(tensor.shape):
        raise UserError(f"{source} has '{name}' of shape {shape}, not {tuple(tensor.shape)}: {MEND}")
