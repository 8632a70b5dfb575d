"""Text encoders of every kind with random weights, in a folder as their authors would lay it out."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = (
    "<pad>",
    "<s>",
    "<unk>",
    "<|eot_id|>",
    "a",
    "brick",
    "hall",
    "walk",
    "turn",
    "left",
    "right",
    "describe",
    "video",
    "</s>",
)
"""As in CLIP, what ends a text has the largest number."""
CLIP = {
    "vocab_size": 20,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
    "bos_token_id": 1,
    "eos_token_id": 13,
    "pad_token_id": 0,
}
T5 = {"vocab_size": 400, "d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
LLAMA = {
    "vocab_size": 20,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 13,
}


def write_tokenizer(folder: Path, ending: str) -> None:
    """Words as tokens, `<s>` before them and `ending` after them."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([*WORDS[:4], WORDS[-1]])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"<s> $A {ending}".strip(), special_tokens=[("<s>", 1), ("</s>", 13)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)


def write_encoders(folder: Path) -> Path:
    """`text_encoder`, `tokenizer` (LLaMA), `text_encoder_2`, `tokenizer_2` (CLIP), `t5`, `umt5`, `byt5`."""
    torch.manual_seed(0)
    llama = transformers.LlamaModel(transformers.LlamaConfig(**LLAMA))
    llama.save_pretrained(folder / "text_encoder")
    write_tokenizer(folder / "tokenizer", "")
    clip = transformers.CLIPTextModel(transformers.CLIPTextConfig(**CLIP))
    clip.save_pretrained(folder / "text_encoder_2")
    write_tokenizer(folder / "tokenizer_2", "</s>")
    for name in ("t5", "byt5"):
        transformers.T5EncoderModel(transformers.T5Config(**T5)).save_pretrained(folder / name)
    transformers.UMT5EncoderModel(transformers.UMT5Config(**T5)).save_pretrained(folder / "umt5")
    for name in ("t5", "umt5"):
        write_tokenizer(folder / name, "</s>")
    return folder
