"""Published text models, through `transformers`: CLIP, T5 and its kin, and layers of language models.

    CLIP               states of all tokens, and the state of the last one as `pooled`
    T5, UL2, umT5      states of all tokens
    ByT5               states of the bytes to be rendered, which stand in quotes
    LLaMA and its kin  states of a layer before the last, of what follows a template

Each is a folder as its authors published it, or `hf://owner/name`; a folder is never completed from the hub.
Nothing is opened before it is needed, nothing is trained, and padding is neither computed nor kept. Texts of
more tokens than an encoder was published with are cut there, as its authors do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from dreamwalk.errors import UserError
from dreamwalk.layers.text import TextEmbedding

HUB = "hf://"
QUOTED = re.compile(r'"([^"]*)"|“([^”]*)”|„([^“”]*)[“”]')
AT_ONCE = 16
"""Texts that an encoder reads together, those of like length."""


@dataclass(frozen=True)
class TextModelConfig:
    """A published text model and where it is."""

    source: str
    """Folder, or `hf://owner/name`."""
    max_length: int = 512
    """Tokens of a text, at most."""
    model: str = ""
    """Where in the source the weights are."""
    tokenizer: str = ""

    def prompt(self, text: str) -> str:
        """What is tokenized of a text, or around it; empty: nothing is read."""
        return text


@dataclass(frozen=True)
class ClipTextConfig(TextModelConfig):
    """A CLIP text encoder (arXiv 2103.00020)."""

    max_length: int = 77
    """256 for the long-prompt MetaCLIP of Movie Gen."""


@dataclass(frozen=True)
class T5TextConfig(TextModelConfig):
    """The encoder of T5 (arXiv 1910.10683), UL2 (2205.05131) or umT5 (2304.09151)."""


@dataclass(frozen=True)
class QuotedTextConfig(TextModelConfig):
    """ByT5 (arXiv 2105.13626) over what stands in double quotes; it has no tokenizer's file."""

    max_length: int = 100
    """Bytes."""

    def prompt(self, text: str) -> str:
        """Empty where no text is to be rendered."""
        return quoted(text)


@dataclass(frozen=True)
class DecoderTextConfig(TextModelConfig):
    """The states of a language model `skip` layers before its last one, without the norm at its end."""

    max_length: int = 256
    """Tokens after the crop."""
    template: str = "{}"
    """The text is put in place of `{}`; states of all that comes before it are cropped."""
    crop: int | None = None
    """How many tokens that should be; None if nothing is published. Another tokenizer makes other tokens."""
    skip: int = 2

    def prompt(self, text: str) -> str:
        return self.template.replace("{}", text)


class EmbeddingDims(NamedTuple):
    """Widths of a text model's embeddings."""

    tokens: int
    pooled: int | None


class TextModel(Protocol):
    """Texts to `TextEmbedding`, without a weight that is trained."""

    @property
    def dims(self) -> EmbeddingDims: ...

    def describe(self) -> Any:
        """JSON-able; two models with one description give the same embeddings."""

    def check(self, text: str) -> None:
        """UserError for a text that would be truncated."""

    def encode(self, texts: Sequence[str], images: Tensor | None = None) -> TextEmbedding: ...


@dataclass(eq=False)
class PretrainedTextModel:
    """A published model, opened when it is first asked and closed again by `close`.

    UserError, on being asked, for what is not there, not a text encoder, or not in safetensors.
    """

    config: TextModelConfig
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.bfloat16

    @cached_property
    def dims(self) -> EmbeddingDims:
        """Read from the model's config; its weights stay closed."""
        from transformers import AutoConfig

        width = open_part(AutoConfig, self.config.source, self.config.model).get_text_config().hidden_size
        return EmbeddingDims(width, width if isinstance(self.config, ClipTextConfig) else None)

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer, ByT5Tokenizer

        if isinstance(self.config, QuotedTextConfig):
            return ByT5Tokenizer()
        return open_part(AutoTokenizer, self.config.source, self.config.tokenizer)

    @cached_property
    def model(self) -> nn.Module:
        return _weights(self.config, self.dtype).requires_grad_(False).eval().to(self.device)

    @cached_property
    def crop(self) -> int:
        """Tokens of the template before the text; UserError when they are not as many as published."""
        if not isinstance(self.config, DecoderTextConfig):
            return 0
        before, _, _ = self.config.template.partition("{}")
        found, published = len(self.tokenizer(before).input_ids), self.config.crop
        if published not in (None, found):
            raise UserError(
                f"the tokenizer in '{self.config.source}' makes {found} tokens of the template where its "
                f"authors have {published}: it belongs to another model"
            )
        return found

    def close(self) -> None:
        """Give the memory of the weights back; they are opened again when needed."""
        self.__dict__.pop("model", None)

    def describe(self) -> Any:
        return {"encoder": type(self.config).__name__, **asdict(self.config), "dtype": str(self.dtype)}

    @torch.no_grad()
    def encode(self, texts: Sequence[str], images: Tensor | None = None) -> TextEmbedding:
        """`b` texts to tokens `(b, n, d)` of the longest, and pooled `(b, d)` of CLIP; in `dtype`."""
        symbols = self._symbols(texts)
        states = [torch.zeros(0, self.dims.tokens, dtype=self.dtype, device=self.device) for _ in texts]
        pooled: list[Tensor] = [torch.empty(0)] * len(texts)
        order = sorted((i for i in range(len(texts)) if symbols[i]), key=lambda i: len(symbols[i]))
        for piece in (order[k : k + AT_ONCE] for k in range(0, len(order), AT_ONCE)):
            rows = [torch.tensor(symbols[i], device=self.device) for i in piece]
            mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
            out = self.model(input_ids=pad_sequence(rows, batch_first=True), attention_mask=mask)
            for row, i in enumerate(piece):
                states[i] = out.last_hidden_state[row, self.crop : len(symbols[i])].to(self.dtype)
                pooled[i] = out.pooler_output[row] if self.dims.pooled else pooled[i]
        return padded(states, pooled if self.dims.pooled else None)

    def check(self, text: str) -> None:
        """UserError for a text of more than `max_length` tokens, which `encode` would truncate."""
        prompt, most = self.config.prompt(text), self.config.max_length
        size = len(self.tokenizer(prompt, verbose=False).input_ids) - self.crop if prompt else 0
        if size > most:
            raise UserError(f"a text has {size} tokens and {most} are read: shorten '{text[:40]}...'")

    def _symbols(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text; none where no text is to be rendered."""
        most, optional = self.crop + self.config.max_length, isinstance(self.config, QuotedTextConfig)
        tokenize = partial(self.tokenizer, truncation=True, max_length=most)
        prompts = [self.config.prompt(text) for text in texts]
        return [[] if optional and not prompt else tokenize(prompt).input_ids for prompt in prompts]


def quoted(text: str) -> str:
    """What stands in double quotes, straight or typographic, with a space between one and the next."""
    return " ".join(part for found in QUOTED.findall(text) for part in found if part)


def padded(states: Sequence[Tensor], pooled: Sequence[Tensor] | None) -> TextEmbedding:
    """The embedding of a batch, from each text's tokens `(n, d)` and, perhaps, pooled `(p,)`."""
    lengths = torch.tensor([len(state) for state in states])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    tokens = pad_sequence(list(states), batch_first=True)
    present = None if bool(mask.all()) else mask.to(tokens.device)
    return TextEmbedding(tokens, present, None if pooled is None else torch.stack(list(pooled)))


def _weights(config: TextModelConfig, dtype: torch.dtype) -> Any:
    """The weights that are used of a model."""
    from transformers import AutoConfig, AutoModel, CLIPTextModel, T5EncoderModel, UMT5EncoderModel

    kinds: dict[Any, Any] = {ClipTextConfig: CLIPTextModel, DecoderTextConfig: AutoModel}
    kind = kinds.get(type(config), T5EncoderModel)
    if kind is T5EncoderModel and open_part(AutoConfig, config.source, config.model).model_type == "umt5":
        kind = UMT5EncoderModel
    model = open_whole(kind, config.source, config.model, dtype=dtype)
    if isinstance(config, ClipTextConfig) and model.config.max_position_embeddings < config.max_length:
        most = model.config.max_position_embeddings
        raise UserError(f"'{config.source}' reads {most} tokens, not {config.max_length}: ask for {most}")
    if isinstance(config, DecoderTextConfig):
        cut(model, config)
    return model


def open_whole(kind: Any, source: str, part: str, *, dtype: torch.dtype) -> Any:
    """A model, a `kind` of transformers; UserError when its file does not hold all of it."""
    given = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    model, about = open_part(kind, source, part, given)
    if missing := about["missing_keys"]:
        raise UserError(f"'{source}' lacks '{min(missing)}': it holds no {kind.__name__}, or not all")
    return model


def cut(model: Any, config: DecoderTextConfig) -> None:
    """Take the layers off that are skipped, and with them the norm that would follow."""
    if config.skip >= len(model.layers):
        raise UserError(f"'{config.source}' has {len(model.layers)} layers: skip fewer than {config.skip}")
    model.config.use_cache = False
    if config.skip:
        del model.layers[-config.skip :]
        model.norm = nn.Identity()


def open_part(kind: Any, source: str, part: str, given: Mapping[str, Any] | None = None) -> Any:
    """`kind.from_pretrained` of a part of a source; UserError with one sentence for whatever is wrong."""
    hub = source.startswith(HUB)
    where = source.removeprefix(HUB) if hub else str(Path(source).expanduser())
    if not hub and not (Path(where) / part).is_dir():
        what = part.replace("_", " ") or "text encoder"
        raise UserError(
            f"there is no {what} at '{Path(where) / part}': put its folder there, or name it as "
            f"'{HUB}owner/name'"
        )
    try:
        return kind.from_pretrained(where, subfolder=part, local_files_only=not hub, **(given or {}))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"no {kind.__name__} can be opened from '{source}' ({reason})") from None
