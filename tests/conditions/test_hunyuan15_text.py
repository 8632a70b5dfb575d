"""The pair of HunyuanVideo-1.5 against the pipeline of diffusers, with encoders of random weights."""

import inspect
import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from tiny_encoders import LLAMA, T5, write_tokenizer
from tiny_kinds import CHAT
from tokenizers import processors

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    from diffusers import HunyuanVideo15Pipeline

from dreamwalk.conditions.hunyuan15 import CROP, TEMPLATE, GlyphTextConfig, Hunyuan15TextConfig
from dreamwalk.conditions.pretrained import EmbeddingDims, PretrainedTextModel
from dreamwalk.layers.text import TextEmbedding

TEXTS = ["walk a brick hall", 'a hall “left” "a" walk "left"', "", 'turn "right, left" right left right left']


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoders")
    heads = {
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "mrope_section": [4, 2, 2]},
    }
    config = transformers.Qwen2_5_VLTextConfig(**LLAMA, **heads)
    transformers.Qwen2_5_VLTextModel(config).save_pretrained(folder / "text_encoder")
    transformers.T5EncoderModel(transformers.T5Config(**T5)).save_pretrained(folder / "text_encoder_2")
    write_tokenizer(folder / "tokenizer", "")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A")  # as Qwen's
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder


def theirs(folder: Path, texts: list[str], *, max_length: int, crop: int) -> TextEmbedding:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.chat_template = CHAT
    model = transformers.Qwen2_5_VLTextModel.from_pretrained(folder / "text_encoder")
    letters = transformers.T5EncoderModel.from_pretrained(folder / "text_encoder_2")
    place = torch.device("cpu")
    states, mask = HunyuanVideo15Pipeline._get_mllm_prompt_embeds(
        model, tokenizer, texts, place, tokenizer_max_length=max_length, crop_start=crop
    )
    bytes_, shown = HunyuanVideo15Pipeline._get_byt5_prompt_embeds(
        transformers.ByT5Tokenizer(), letters, texts, place, tokenizer_max_length=20
    )
    return TextEmbedding(states, mask.bool(), None, (TextEmbedding(bytes_, shown.bool()),))


@torch.no_grad()
@pytest.mark.parametrize("max_length", [30, 7])
def test_the_pair_gives_what_its_pipeline_gives(folder: Path, max_length: int) -> None:
    pair = Hunyuan15TextConfig(str(folder)).open(torch.device("cpu"), torch.float32)
    language, glyphs = (model.config for model in pair.models)
    assert (language.crop, language.max_length) == (CROP, 1000)
    assert glyphs.max_length == 256 and pair.dims == EmbeddingDims(32, None)
    configs = replace(language, max_length=max_length, crop=None), replace(glyphs, max_length=20)
    pair.models = [PretrainedTextModel(config, dtype=torch.float32) for config in configs]
    words, expected = (
        pair.encode(TEXTS),
        theirs(folder, TEXTS, max_length=max_length, crop=pair.models[0].crop),
    )
    for ours, other in ((words, expected), (words.others[0], expected.others[0])):
        assert ours.present.sum(1).tolist() == other.present.sum(1).tolist()
        torch.testing.assert_close(ours.tokens[ours.present], other.tokens[other.present], atol=1e-4, rtol=0)
    assert words.others[0].present.sum(1).tolist()[::2] == [0, 0]


def test_no_letters_at_all(folder: Path) -> None:
    assert Hunyuan15TextConfig(str(folder)).open(torch.device("cpu")).models[1].encode(
        ["walk", "turn"]
    ).tokens.shape == (2, 0, 24)


def test_the_question_is_theirs() -> None:
    given = inspect.signature(HunyuanVideo15Pipeline._get_mllm_prompt_embeds).parameters
    message = re.search(r"system\n(.*)<\|im_end\|>\n<\|im_start\|>user", TEMPLATE)
    assert message is not None and message[1] == given["system_message"].default
    assert given["crop_start"].default == CROP


def test_letters_are_said_to_be_a_text() -> None:
    told = GlyphTextConfig("").prompt('say "hi", then “so long”, then "hi"')
    assert told == 'Text "hi". Text "so long". ' and GlyphTextConfig("").prompt("it's late") == ""
