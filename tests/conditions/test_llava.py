"""A text read with a picture against diffusers' pipeline, at tiny sizes and in the published folder."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from drawn import wide_pictures
from PIL import Image
from tiny_llava import opened, write_llava
from torch import Tensor

from dreamwalk.conditions.hunyuan import IMAGE_CROP, IMAGE_TEMPLATE, HunyuanTextConfig
from dreamwalk.conditions.pretrained import EmbeddingDims
from dreamwalk.layers.text import TextEmbedding

TEXTS = ["the video", "a camera and the objects of the video, light and space"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llava(tmp_path_factory.mktemp("encoders"))


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return wide_pictures()


def read(folder: Path, texts: list[str], pictures: Tensor | None, *, every: int = 4) -> TextEmbedding:
    return (
        HunyuanTextConfig(str(folder), every).open(torch.device("cpu"), torch.float32).encode(texts, pictures)
    )


def theirs(folder: Path, texts: list[str], pictures: Tensor, *, every: int) -> tuple[Tensor, Tensor, Tensor]:
    from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video_image2video as module

    template, pipeline = module.DEFAULT_PROMPT_TEMPLATE, module.HunyuanVideoImageToVideoPipeline
    assert (template["template"], template["crop_start"]) == (IMAGE_TEMPLATE, IMAGE_CROP)
    parts: Any = SimpleNamespace(**opened(folder))
    images = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pictures]
    at = {"device": torch.device("cpu")}
    with torch.no_grad():
        states, mask = pipeline._get_llama_prompt_embeds(
            parts, images, texts, template, image_embed_interleave=every, **at
        )
        return states, mask.bool(), pipeline._get_clip_prompt_embeds(parts, texts, **at)


@pytest.mark.parametrize("every", [1, 2, 4])
def test_it_is_what_the_pipeline_gives(folder: Path, pictures: Tensor, every: int) -> None:
    states, mask, pooled = theirs(folder, TEXTS, pictures, every=every)
    words = read(folder, TEXTS, pictures, every=every)
    lengths = [576 // every + count + 1 for count in (2, 12)]
    assert words.mask is not None and words.mask.sum(1).tolist() == mask.sum(1).tolist() == lengths
    assert (words.tokens[words.mask] - states[mask]).abs().max() <= 1e-4 and states[mask].std() > 0.5
    torch.testing.assert_close(words.pooled, pooled)
    assert HunyuanTextConfig(str(folder), every).open(torch.device("cpu")).dims == EmbeddingDims(12, 8)
    assert words.tokens.shape[1] <= HunyuanTextConfig("", every).max_length


@pytest.mark.parametrize("count", [0, 250, 251, 252, 253, 400])
def test_long_texts_are_cut_where_the_pipeline_cuts_them(folder: Path, pictures: Tensor, count: int) -> None:
    texts = [" ".join((["video", "the", "light"] * 200)[:count])]
    states, mask, _ = theirs(folder, texts, pictures[:1], every=4)
    words = read(folder, texts, pictures[:1])
    assert words.mask is None and words.tokens.shape[1] == mask.sum()
    assert (words.tokens - states[mask]).abs().max() <= 1e-4


def test_what_a_picture_shows_is_told(folder: Path, pictures: Tensor) -> None:
    """In its own tokens and in those of the text, which come after it."""
    texts = [TEXTS[0], TEXTS[0]]
    one, other = read(folder, texts, pictures).tokens
    assert min((one - other)[part].abs().max() for part in (slice(144), slice(144, None))) > 1e-2
    same = read(folder, texts, pictures[:1]).tokens
    torch.testing.assert_close(same, one.expand_as(same))


def test_what_cannot_be_read_is_said(folder: Path, pictures: Tensor, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="looks at a picture while it reads: give it one"):
        read(folder, TEXTS, None)
    with pytest.raises(ValueError, match="'<image>' is where the template has its picture: leave it out"):
        read(folder, ["walk <image> on", ""], pictures)
    bare = Path(shutil.copytree(folder, tmp_path / "bare"))
    shutil.rmtree(bare / "image_processor")
    with pytest.raises(ValueError, match=r"no image processor at '.*bare/image_processor': put its folder"):
        read(bare, TEXTS, pictures)
    blind = Path(shutil.copytree(folder, tmp_path / "blind"))
    config = json.loads((blind / "text_encoder/config.json").read_text())
    (blind / "text_encoder/config.json").write_text(json.dumps(config["text_config"]))
    with pytest.raises(ValueError, match=r"blind' looks at no pictures: take LLaVA's folder"):
        read(blind, TEXTS, pictures)
