"""What SigLIP sees against diffusers' pipeline, at a tiny size and in the published folder."""

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from drawn import wide_pictures
from PIL import Image
from tiny_kinds import opened, write_kinds
from torch import Tensor

from dreamwalk.conditions.hunyuan15 import Hunyuan15TextConfig
from dreamwalk.conditions.siglip import SiglipModel

TEXTS = ["the video", 'a camera and "the light", space']


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kinds(tmp_path_factory.mktemp("encoders"))


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return wide_pictures()


def seen(folder: Path, pictures: Tensor | None, *, every: int = 1) -> Tensor:
    return SiglipModel(str(folder), interleave=every, dtype=torch.float32).encode(pictures)


def theirs(folder: Path, pictures: Tensor) -> Tensor:
    from diffusers import HunyuanVideo15ImageToVideoPipeline as Pipeline

    parts, rows = opened(folder), []
    for picture in pictures:
        image = Image.fromarray(picture.permute(1, 2, 0).numpy())
        with torch.no_grad():
            rows.append(
                Pipeline._get_image_embeds(
                    parts["image_encoder"], parts["feature_extractor"], image, torch.device("cpu")
                )
            )
    return torch.cat(rows)


@pytest.mark.parametrize("every", [1, 2])
def test_it_is_what_the_pipeline_gives(folder: Path, pictures: Tensor, every: int) -> None:
    ours, expected = seen(folder, pictures, every=every), theirs(folder, pictures)
    assert expected.shape == (2, 16, 6) and expected.std() > 0.2
    assert (expected[0] - expected[1]).abs().max() > 0.1
    torch.testing.assert_close(ours, expected[:, ::every], atol=1e-4, rtol=0)


def test_it_stands_beside_words_and_letters(folder: Path, pictures: Tensor) -> None:
    """One picture for all texts, or one for each."""
    three = Hunyuan15TextConfig(str(folder), 1).open(torch.device("cpu"), torch.float32)
    assert three.describe()[-1]["encoder"] == "SigLIP"
    one, each = (three.encode(TEXTS, given).others for given in (pictures[:1], pictures))
    alone = seen(folder, pictures)
    torch.testing.assert_close(each[1].tokens, alone)
    torch.testing.assert_close(one[1].tokens, alone[:1].expand(2, -1, -1))
    assert one[0].present.sum(1).tolist()[0] == 0 and torch.equal(one[0].tokens, each[0].tokens)
    assert len(Hunyuan15TextConfig(str(folder)).open(torch.device("cpu")).encode(TEXTS, pictures).others) == 1


def test_names_of_an_older_file(folder: Path, pictures: Tensor, tmp_path: Path) -> None:
    """Published ones have `vision_model.` before each, which transformers no longer writes."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "image_encoder" / "model.safetensors"
    tensors = {
        f"vision_model.{name.removeprefix('vision_model.')}": tensor
        for name, tensor in safetensors.torch.load_file(path).items()
    }
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    torch.testing.assert_close(seen(tmp_path, pictures), seen(folder, pictures))


def test_what_cannot_be_seen_is_said(folder: Path, pictures: Tensor, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a picture is looked at beside the words: give it one"):
        Hunyuan15TextConfig(str(folder), 1).open(torch.device("cpu")).encode(TEXTS)
    for part, name in (("feature_extractor", "feature extractor"), ("image_encoder", "image encoder")):
        bare = Path(shutil.copytree(folder, tmp_path / part))
        shutil.rmtree(bare / part)
        with pytest.raises(ValueError, match=f"there is no {name} at '{bare / part}': put its folder there"):
            seen(bare, pictures)
    config = transformers.CLIPVisionConfig(hidden_size=6, intermediate_size=12, num_attention_heads=2)
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    transformers.CLIPVisionModel(config).save_pretrained(other / "image_encoder")
    with pytest.raises(ValueError, match=r"no SiglipVisionModel can be opened from"):
        seen(other, pictures)
