"""Eight bits, and four, keep what matters, and files that hold them open as any other."""

from pathlib import Path
from typing import Literal

import pytest
import torch

from dreamwalk.weights import files
from dreamwalk.weights.quantized import pack, unpack


def test_rows_keep_their_scale_and_small_things_stay_exact() -> None:
    torch.manual_seed(0)
    weights = {
        "matrix": torch.randn(64, 128) * torch.logspace(-3, 2, 64)[:, None],
        "bias": torch.randn(5000),
        "small": torch.randn(3, 3),
        "kernel": torch.randn(16, 16, 3, 3, 3),
        "nothing": torch.zeros(64, 64),
        "pictures": torch.ones(99, 99).byte(),
    }
    back = unpack(pack(weights))
    assert set(back) == set(weights)
    for name, tensor in weights.items():
        rows, error = tensor.float().flatten(1) if tensor.ndim > 1 else tensor[None], back[name] - tensor
        assert (
            (error.abs().flatten(1).amax(1) if tensor.ndim > 1 else error.abs())
            .le(rows.abs().amax(1) / 250 if tensor.ndim > 1 else 0)
            .all()
        )
        assert torch.equal(back[name], tensor) == (name not in ("matrix", "kernel"))


def test_a_file_of_eight_bits_opens_as_any_other_and_is_a_quarter(tmp_path: Path) -> None:
    weights = {"matrix": torch.randn(256, 256), "bias": torch.randn(256)}
    files.save(tmp_path / "w.safetensors", pack(weights), metadata={"step": 3})
    tensors, metadata = files.read(tmp_path / "w.safetensors")
    assert metadata == {"step": 3} and set(tensors) == set(weights)
    assert (tensors["matrix"] - weights["matrix"]).abs().max() < 0.03
    assert (tmp_path / "w.safetensors").stat().st_size < 70_000


@pytest.mark.parametrize(("bits", "wrong"), [(4, 0.11), (6, 0.026)])
def test_fewer_bits_have_a_scale_for_every_few_weights(
    bits: Literal[4, 6], wrong: float, tmp_path: Path
) -> None:
    """And what is not made of whole groups gets eight bits."""
    torch.manual_seed(0)
    weights = {
        "matrix": torch.randn(256, 256) * torch.logspace(-2, 1, 256),
        "convolution": torch.randn(48, 64, 3, 5),
        "kernel": torch.randn(64, 8, 3, 3),
    }
    weights |= {"nothing": torch.zeros(64, 64), "odd": torch.randn(99, 99), "bias": torch.randn(256)}
    small = pack(weights, bits=bits)
    files.save(tmp_path / "w.safetensors", small, metadata={})
    back, eight = files.read(tmp_path / "w.safetensors")[0], unpack(pack(weights))
    assert {name: x.shape for name, x in back.items()} == {name: x.shape for name, x in weights.items()}
    assert files.header(tmp_path / "w.safetensors").shapes == {k: tuple(x.shape) for k, x in weights.items()}
    for name in ("matrix", "convolution"):
        off, size = ((x.square().mean().sqrt()) for x in (back[name] - weights[name], weights[name]))
        assert 0.3 * wrong < off / size < wrong
    for name in ("kernel", "odd", "bias", "nothing"):
        assert torch.equal(back[name], eight[name])
    packed = small["matrix"].nbytes + small["matrix:scale"].nbytes
    assert packed == 256 * 256 * (bits + 16 / 32) / 8
