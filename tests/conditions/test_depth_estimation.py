"""Depth of photographs by models of transformers, tiny and random, in their own format."""

from pathlib import Path

import pytest
import torch

from dreamwalk.conditions.depth_estimation import FARTHEST, NEAREST, estimate_depth
from dreamwalk.errors import UserError

transformers = pytest.importorskip("transformers")


def saved(folder: Path, kind: str) -> str:
    """A model of Depth Anything's layout."""
    torch.manual_seed(0)
    dino = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14,
        out_indices=[1, 2], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=dino, reassemble_hidden_size=16, patch_size=14, reassemble_factors=[1, 0.5],
        neck_hidden_sizes=[8, 8], fusion_hidden_size=8, head_hidden_size=8,
        depth_estimation_type=kind, max_depth=10 if kind == "metric" else 1,
    )  # fmt: skip
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    transformers.DPTImageProcessor(size={"height": 28, "width": 28}, ensure_multiple_of=14).save_pretrained(
        folder
    )
    return str(folder)


@pytest.mark.parametrize("kind", ["metric", "relative"])
def test_a_picture_has_a_depth(kind: str, tmp_path: Path) -> None:
    picture = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(1)) * 2 - 1
    depth = estimate_depth(saved(tmp_path, kind), picture, unit=32.0)
    assert depth.shape == (20, 30) and depth.isfinite().all() and (depth >= 0).all()
    if kind == "metric":
        assert depth.max() <= 10 * 32
    else:
        assert depth.min() == pytest.approx(NEAREST * 32) and depth.max() == pytest.approx(FARTHEST * 32)


def test_another_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no depth-estimation model that can be opened .*: give a folder"):
        estimate_depth(str(tmp_path / "nothing"), torch.zeros(3, 8, 8), unit=1.0)
