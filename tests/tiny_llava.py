"""The encoders of HunyuanVideo-I2V at a tiny size, in a folder as diffusers lays them out."""

import re
from pathlib import Path

import torch
import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

from dreamwalk.conditions.hunyuan import IMAGE_TEMPLATE

PIECES = r"\n+|ref|\w+|[^\w\s]"
"""With `reference` in two, the template has as many tokens as the published tokenizer makes of it."""
MARKS = ("<pad>", "<unk>", "<s>", "<image>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "</s>")
WORDS = (*MARKS, *dict.fromkeys(re.findall(PIECES, re.sub(r"<[^>]+>", " ", IMAGE_TEMPLATE))))
TEXT = {
    "vocab_size": len(WORDS),
    "hidden_size": 12,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "bos_token_id": 2,
    "eos_token_id": 7,
    "pad_token_id": 0,
    "max_position_embeddings": 2048,
}
VISION = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 48,
    "patch_size": 2,
}
CLIP = {
    "vocab_size": len(WORDS),
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "bos_token_id": 2,
    "eos_token_id": 7,
    "pad_token_id": 0,
}


def tokenizer(ending: str) -> transformers.PreTrainedTokenizerFast:
    """Words and signs as tokens, `<s>` before them and `ending` after them."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True)
    made.add_special_tokens([*MARKS])
    made.post_processor = processors.TemplateProcessing(
        single=f"<s> $A {ending}".strip(), special_tokens=[("<s>", 2), ("</s>", 7)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def write_llava(folder: Path) -> Path:
    """`text_encoder`, `tokenizer`, `image_processor` of LLaVA; `text_encoder_2`, `tokenizer_2` of CLIP."""
    torch.manual_seed(0)
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION),
        text_config=transformers.LlamaConfig(**TEXT),
        image_token_index=WORDS.index("<image>"),
        pad_token_id=0,
    )
    llava = transformers.LlavaForConditionalGeneration(config)
    clip = transformers.CLIPTextModel(transformers.CLIPTextConfig(**CLIP))
    for model, name in ((llava, "text_encoder"), (clip, "text_encoder_2")):
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(folder / name)
    tokenizer("").save_pretrained(folder / "tokenizer")
    tokenizer("</s>").save_pretrained(folder / "tokenizer_2")
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}
    )
    processor.save_pretrained(folder / "image_processor")
    return folder


def opened(folder: Path) -> dict[str, object]:
    """The parts of a folder as diffusers' pipeline takes them."""
    return {
        "text_encoder": transformers.LlavaForConditionalGeneration.from_pretrained(folder / "text_encoder"),
        "tokenizer": transformers.AutoTokenizer.from_pretrained(folder / "tokenizer"),
        "text_encoder_2": transformers.CLIPTextModel.from_pretrained(folder / "text_encoder_2"),
        "tokenizer_2": transformers.AutoTokenizer.from_pretrained(folder / "tokenizer_2"),
        "image_processor": transformers.AutoImageProcessor.from_pretrained(
            folder / "image_processor", backend="pil"
        ),
    }
