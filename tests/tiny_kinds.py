"""The encoders of HunyuanVideo-1.5 for pictures at a tiny size, in a folder as diffusers lays them out."""

import re
from pathlib import Path

import torch
import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from dreamwalk.conditions.hunyuan15 import TEMPLATE

PIECES = r"<\|\w+\|>|(?<=\w)\n|\w{1,8}|[^\w\s]"
"""With these the template has as many tokens as the published tokenizer makes of it."""
MARKS = ("<pad>", "<unk>", "<|im_start|>", "<|im_end|>")
WORDS = tuple(dict.fromkeys([*MARKS, *re.findall(PIECES, TEMPLATE)]))
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen's form of a conversation."""
QWEN = {
    "vocab_size": len(WORDS),
    "hidden_size": 12,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 1]},
}
BYT5 = {"vocab_size": 384, "d_model": 10, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
SIGLIP = {
    "hidden_size": 6,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
}


def write_tokenizer(folder: Path) -> None:
    """Words and signs as tokens, and nothing before or after them."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True)
    made.add_special_tokens([*MARKS])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", padding_side="right"
    )
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)


def write_siglip(folder: Path) -> Path:
    """`image_encoder` and `feature_extractor`."""
    torch.manual_seed(0)
    siglip = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SIGLIP))
    for parameter in siglip.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    siglip.save_pretrained(folder / "image_encoder")
    half = [0.5, 0.5, 0.5]
    processor = transformers.SiglipImageProcessorPil(
        size={"height": 28, "width": 28}, image_mean=half, image_std=half
    )
    processor.save_pretrained(folder / "feature_extractor")
    return folder


def write_kinds(folder: Path) -> Path:
    """Besides, `text_encoder` and `tokenizer` of Qwen2.5-VL, and `text_encoder_2` of ByT5."""
    torch.manual_seed(0)
    qwen = transformers.Qwen2_5_VLTextModel(transformers.Qwen2_5_VLTextConfig(**QWEN))
    byt5 = transformers.T5EncoderModel(transformers.T5Config(**BYT5))
    for model, name in ((qwen, "text_encoder"), (byt5, "text_encoder_2")):
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(folder / name)
    write_tokenizer(folder / "tokenizer")
    return write_siglip(folder)


def opened(folder: Path) -> dict[str, object]:
    """The parts of a folder as diffusers' pipeline takes them."""
    return {
        "text_encoder": transformers.Qwen2_5_VLTextModel.from_pretrained(folder / "text_encoder"),
        "tokenizer": transformers.AutoTokenizer.from_pretrained(folder / "tokenizer"),
        "text_encoder_2": transformers.T5EncoderModel.from_pretrained(folder / "text_encoder_2"),
        "tokenizer_2": transformers.ByT5Tokenizer(),
        "image_encoder": transformers.SiglipVisionModel.from_pretrained(folder / "image_encoder"),
        "feature_extractor": transformers.AutoImageProcessor.from_pretrained(
            folder / "feature_extractor", backend="pil"
        ),
    }
