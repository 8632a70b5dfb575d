"""A card that is not there: tensors that live on the CPU, say they are on `cuda`, and mix with no others.

    with virtual_card():
        system.to("cuda")

Code runs as on an NVIDIA card as far as devices go: what would fail there because two devices meet fails here
too, with the same exception. Arithmetic is that of the CPU. To autograd the tensors are of the device `meta`,
which needs neither a driver nor threads of its own; only Python is told `cuda`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

CARD = torch.device("cuda", 0)
ATEN = torch.ops.aten
ANYWHERE = {ATEN.copy_.default, ATEN._copy_from.default, ATEN._to_copy.default, ATEN.set_data.default}
"""Operations between two devices."""
HERE = {ATEN.index.Tensor, ATEN._unsafe_index.Tensor, ATEN.index_put.default, ATEN.index_put_.default}
HERE |= {ATEN._index_put_impl_.default}
"""Their indices may lie on the CPU."""
SCALARS = {ATEN.masked_fill.Tensor, ATEN.masked_fill_.Tensor, ATEN.fill.Tensor, ATEN.fill_.Tensor}
SCALARS |= {ATEN.index_fill.int_Tensor, ATEN.index_fill_.int_Tensor} | HERE
"""Beside those that go point by point, operations that take a number from the CPU."""
PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "addmv", "mv", "dot", "convolution", "_int_mm")
"""Operations that a card has for floats only."""


class CardTensor(Tensor):
    """A tensor on the virtual card."""

    inner: Tensor
    """What it holds, on the CPU."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> CardTensor:
        assert type(inner) is Tensor and inner.device.type == "cpu", "one of the CPU"
        return Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="meta",
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:  # type: ignore[override]
        return f"CardTensor({self.inner})"

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.inner.detach().numpy()
        raise TypeError("can't convert cuda:0 device type tensor to numpy: copy the tensor to the CPU first")

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None  # parameters of modules that are moved are then replaced, not filled

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, Tensor], *_: Any) -> CardTensor:
        return CardTensor(parts["inner"])

    device = property(lambda self: CARD)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return dispatched(func, args, kwargs or {})


class VirtualCard(TorchDispatchMode):
    """Makes tensors on the virtual card where `cuda` is asked for."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return dispatched(func, args, kwargs or {})


class _AsMeta(TorchFunctionMode):
    """Asks for `meta` where `cuda` is asked for, which a PyTorch without CUDA would refuse."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.cuda:
            return args[0].to("meta")
        if func is Tensor.new_tensor and isinstance(args[0], CardTensor):
            return func(args[0].inner, *args[1:], **(kwargs or {})).to("meta")
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            # Torch itself would take lists to `meta`, where nothing is kept.
            whole = args[1] if isinstance(args[1], tuple) else (args[1],)
            index = tuple(_index(x) if isinstance(x, list | tuple) else x for x in whole)
            return func(args[0], index, *args[2:])
        args, kwargs = tuple(map(_as_meta, args)), {k: _as_meta(x) for k, x in (kwargs or {}).items()}
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == "meta":
            return func(*args, **{**kwargs, "device": "cpu"}).to("meta")
        return func(*args, **kwargs)


def _index(x: Sequence[Any]) -> Tensor:
    return torch.tensor(x) if x else torch.zeros(0, dtype=torch.int64)


def _as_meta(x: Any) -> Any:
    asked = isinstance(x, torch.device) and x.type == "cuda"
    return "meta" if asked or (isinstance(x, str) and x.split(":")[0] == "cuda") else x


def dispatched(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What an operation gives, on the device where a card would give it."""
    leaves = [*_leaves(args), *_leaves(kwargs.values())]
    asked = next((x for x in leaves if isinstance(x, torch.device)), None)
    held = any(isinstance(x, CardTensor) for x in leaves)
    if not held and (asked is None or asked.type == "cpu"):
        return func(*args, **kwargs)
    on_card = held if asked is None else asked.type in ("cuda", "meta")
    if func not in ANYWHERE:
        check_devices(func, args, leaves)
    if on_card:
        check_card(func, leaves)
    made = func(*map(_here, args), **{name: _here(x) for name, x in kwargs.items()})
    places, view = _schema(func)
    written = [kwargs[name] if name in kwargs else args[i] for i, name in places]
    for x in written:
        if isinstance(x, CardTensor) and x.shape != x.inner.shape:
            with no_dispatch():
                x.resize_(x.inner.shape)
    if written and func._schema.returns:
        return written[0] if len(func._schema.returns) == 1 else tuple(written)
    if not on_card:
        return made
    # A view of an ordinary tensor is one too, in inference mode as well.
    ordinary = view and any(isinstance(x, Tensor) and not x.is_inference() for x in args)
    with torch.inference_mode(torch.is_inference_mode_enabled() and not ordinary):
        return _there(made)


@cache
def _schema(func: Any) -> tuple[list[tuple[int, str]], bool]:
    """Places and names of the arguments that an operation writes, and whether it makes a view."""
    pairs = enumerate(func._schema.arguments)
    written = [(i, x.name) for i, x in pairs if x.alias_info is not None and x.alias_info.is_write]
    return written, any(x.alias_info is not None for x in func._schema.returns)


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    for x in values:
        if isinstance(x, list | tuple):
            yield from _leaves(x)
        else:
            yield x


def _here(x: Any) -> Any:
    """Arguments as the CPU takes them."""
    if isinstance(x, CardTensor):
        return x.inner
    if isinstance(x, list | tuple):
        return type(x)(map(_here, x))
    return torch.device("cpu") if isinstance(x, torch.device) else x


def _there(x: Any) -> Any:
    """Results as tensors of the card."""
    if isinstance(x, list | tuple):
        return tuple(map(_there, x)) if isinstance(x, tuple) else list(map(_there, x))
    return CardTensor(x) if type(x) is Tensor else x


def check_devices(func: Any, args: Sequence[Any], leaves: Sequence[Any]) -> None:
    """RuntimeError where a card would complain of two devices."""
    allowed: set[int] = set()
    if func in HERE and isinstance(args[0], CardTensor):
        allowed = {id(index) for index in args[1] if index is not None and not index.is_meta}
    scalars = func in SCALARS or torch.Tag.pointwise in func.tags or func is ATEN.where.self
    for x in leaves:
        if not isinstance(x, Tensor) or isinstance(x, CardTensor) or id(x) in allowed:
            continue
        assert not x.is_meta, f"{func} was given a tensor that holds nothing"
        written = x is args[0] and func._schema.name.endswith("_")
        if x.ndim == 0 and scalars and not written:
            continue
        if any(isinstance(other, CardTensor) for other in leaves):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
                f"cpu! (of {func}: {tuple(x.shape)} on the CPU)"
            )


def check_card(func: Any, leaves: Sequence[Any]) -> None:
    """RuntimeError for what a card cannot do: draw from a generator of the CPU, multiply integers."""
    if any(isinstance(x, torch.Generator) and x.device.type == "cpu" for x in leaves):
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' ({func})")
    integers = any(isinstance(x, CardTensor) and not x.inner.is_floating_point() for x in leaves)
    if integers and func._schema.name.removeprefix("aten::") in PRODUCTS:
        raise RuntimeError(f'"{func}_cuda" not implemented for integers')


@contextmanager
def virtual_card() -> Iterator[None]:
    """Within it `cuda` is a device, in this thread and in those of pools that it makes."""
    submit = ThreadPoolExecutor.submit

    def with_card(
        self: ThreadPoolExecutor, call: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with VirtualCard(), _AsMeta():
                return call(*args, **kwargs)

        return submit(self, run, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, VirtualCard(), _AsMeta():
        patch.setattr(ThreadPoolExecutor, "submit", with_card)
        yield
