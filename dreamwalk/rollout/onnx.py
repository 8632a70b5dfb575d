"""The pass and the decoder in ONNX Runtime: exact to float32 rounding, and faster than eager PyTorch on a
CPU.

Graphs are exported once per weights and kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from dreamwalk.backbones.frame_backbone import NOTHING, FrameBackbone, FrameInputs, Recalled
from dreamwalk.errors import atomic
from dreamwalk.layers.attention import KeyValues
from dreamwalk.layers.cache import Cache, RingCache


class _PassGraph(nn.Module):
    """The cached pass with plain tensors in and out."""

    def __init__(self, conditions: nn.Module, backbone: FrameBackbone, given: Sequence[str]) -> None:
        """`given` names the fields of `Recalled` that come as tensors."""
        super().__init__()
        self.conditions, self.backbone, self.given = conditions, backbone, given

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        action: Tensor,
        cos: Tensor,
        sin: Tensor,
        bias: Tensor,
        keys: Tensor,
        values: Tensor,
        *recalled: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        cache = RingCache(keys, values, self.backbone.config.tokens)
        known = Recalled(**dict(zip(self.given, recalled, strict=True)))
        inputs = FrameInputs(self.conditions(action), known)
        v, fresh = self.backbone.predict(x, sigma, inputs, (cos, sin), bias, cache)
        return v, torch.stack([kv.keys for kv in fresh]), torch.stack([kv.values for kv in fresh])


def fits(module: nn.Module) -> bool:
    """Whether a graph of `module` fits into one ONNX file, which ends at 2 GB, and is of single precision."""
    parts = module.state_dict().values()
    single = all(part.dtype == torch.float32 for part in parts if part.is_floating_point())
    return single and sum(4 * part.numel() for part in parts) < 2**31 - 2**20


class OnnxPass:
    """`rollout.realtime.FramePass` for one session at a time (batch 1) with a cache of `window` frames."""

    def __init__(
        self,
        conditions: nn.Module,
        backbone: FrameBackbone,
        *,
        actions: int,
        window: int,
        blank: Recalled = NOTHING,
        threads: int = 0,
    ) -> None:
        """`blank` is what its memory blocks are given when nothing is recalled."""
        self.config, self.rope, self.bias = backbone.config, backbone.rope, backbone.bias
        cache = backbone.cache(window)
        rope = backbone.rope(torch.zeros(1))
        x = torch.zeros(1, 1, self.config.channels, *self.config.grid)
        frame = (x, torch.ones(1, 1), torch.zeros(1, 1, actions), *rope, backbone.bias(cache))
        features = torch.zeros(1, 1, self.config.tokens, self.config.width)
        self.nothing = blank._replace(features=features, guess=torch.zeros_like(x))
        given = {name: part for name, part in self.nothing._asdict().items() if part is not None}
        inputs = (*frame, cache.keys, cache.values, *given.values())
        self.session = _session(_PassGraph(conditions, backbone, tuple(given)), inputs, threads=threads)
        self.names = [entry.name for entry in self.session.get_inputs()]

    def __call__(
        self, x: Tensor, sigma: float, action: Tensor, cache: Cache, recalled: Recalled = NOTHING
    ) -> tuple[Tensor, Sequence[KeyValues]]:
        assert isinstance(cache, RingCache), "the graph reads one ring"
        rope = self.rope(torch.tensor([cache.frames]))
        level, bias = torch.full((1, 1), sigma), self.bias(cache)
        feeds = (
            x,
            level,
            action,
            *rope,
            bias,
            cache.keys,
            cache.values,
            *(
                zeros if part is None else part
                for zeros, part in zip(self.nothing, recalled, strict=True)
                if zeros is not None
            ),
        )
        v, keys, values = _run(self.session, self.names, feeds)
        return v, [KeyValues(k, w) for k, w in zip(keys, values, strict=True)]


class OnnxDecoder:
    """`codec.decode` for one frame: latents `(1, 1, c, h, w)` -> video `(1, 1, 3, H, W)`."""

    def __init__(self, codec: nn.Module, shape: tuple[int, int, int], *, threads: int = 0) -> None:
        graph = nn.Module()
        graph.codec = codec
        graph.forward = lambda latents: codec.decode(latents)  # type: ignore[method-assign, operator]
        self.session = _session(graph, (torch.zeros(1, 1, *shape),), threads=threads)
        self.names = [entry.name for entry in self.session.get_inputs()]

    def __call__(self, latents: Tensor) -> Tensor:
        return _run(self.session, self.names, (latents,))[0]


def _run(session: onnxruntime.InferenceSession, names: list[str], feeds: Sequence[Tensor]) -> list[Tensor]:
    arrays = {name: np.ascontiguousarray(feed.numpy()) for name, feed in zip(names, feeds, strict=True)}
    return [torch.from_numpy(array) for array in session.run(None, arrays)]


def _session(graph: nn.Module, inputs: tuple[Tensor, ...], *, threads: int) -> onnxruntime.InferenceSession:
    """An inference session of `graph`, exported now or taken from the cache folder."""
    path = _cache_folder() / f"{_fingerprint(graph, inputs)}.onnx"
    if not path.exists():
        with atomic(path) as partial:
            _export(graph.eval(), inputs, partial)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # leave the cores to the others
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _export(graph: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> None:
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    inputs = tuple(part.clone() for part in inputs)  # of one tensor given twice the exporter makes one input
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own deprecations
            program: Any = torch.onnx.export(graph, inputs, dynamo=True, verbose=False, external_data=False)
            program.save(str(path), external_data=False)
    finally:
        noisy.setLevel(level)


def _fingerprint(graph: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    """A name for the graph, of all that it is made from: versions, shapes, weights and our own code."""
    digest = hashlib.sha256(f"{torch.__version__} {[tuple(i.shape) for i in inputs]} {graph}".encode())
    for name, tensor in sorted(graph.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    package = Path(__file__).parent.parent
    for part in ("backbones", "codecs", "conditions", "layers", "rollout"):
        for source in sorted((package / part).glob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:32]


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dreamwalk" / "onnx"
