"""Published text encoders, through `transformers`: CLIP, T5 and its kin, and layers of language models.

    CLIP               states of all tokens, and the state of the last one as `pooled`
    T5, UL2, umT5      states of all tokens
    ByT5               states of the bytes that a picture shall show, which stand in quotes
    LLaMA and its kin  states of a layer before the last, of what follows a template

Each is a folder as its authors published it, or `hf://owner/name`; a folder is never completed from the hub.
Nothing is opened before it is needed, nothing is trained, and padding is neither computed nor kept. Texts of
more tokens than an encoder was published with are cut there, as its authors do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
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
class ClipText:
    """A CLIP text encoder (arXiv 2103.00020)."""

    source: str
    """Folder, or `hf://owner/name`."""
    longest: int = 77
    """Tokens; 256 for the long-prompt MetaCLIP of Movie Gen."""
    model: str = ""
    """Where in the source the weights are."""
    tokenizer: str = ""


@dataclass(frozen=True)
class T5Text:
    """The encoder of T5 (arXiv 1910.10683), UL2 (2205.05131) or umT5 (2304.09151)."""

    source: str
    longest: int = 512
    model: str = ""
    tokenizer: str = ""


@dataclass(frozen=True)
class QuotedText:
    """ByT5 (arXiv 2105.13626) over what stands in double quotes; it has no tokenizer's file."""

    source: str
    longest: int = 100
    """Bytes."""
    model: str = ""

    def shown(self, text: str) -> str:
        """What is read of a text; nothing where a picture is to show no letters."""
        return quoted(text)


@dataclass(frozen=True)
class DecoderText:
    """The states of a language model `skip` layers before its last one, without the norm at its end."""

    source: str
    longest: int = 256
    """Tokens after the crop."""
    template: str = "{}"
    """The text is put in place of `{}`; states of all that comes before it are cropped."""
    crop: int | None = None
    """How many tokens that should be; None if nothing is published. Another tokenizer makes other tokens."""
    skip: int = 2
    model: str = ""
    tokenizer: str = ""


TextConfig = ClipText | T5Text | QuotedText | DecoderText


class Widths(NamedTuple):
    """Of what an encoder gives."""

    tokens: int
    pooled: int | None


class Encoder(Protocol):
    """What can be asked of anything that turns texts into `TextEmbedding`."""

    @property
    def widths(self) -> Widths: ...

    def describe(self) -> Any:
        """JSON-able; two encoders with one description give the same words."""

    def check(self, text: str) -> None:
        """UserError for a text of which not all would be read."""

    def encode(self, texts: Sequence[str]) -> TextEmbedding: ...


class TextEncoder:
    """A published encoder, opened when it is first asked and closed again by `close`.

    UserError, on being asked, for what is not there, not a text encoder, or not in safetensors.
    """

    def __init__(
        self, config: TextConfig, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16
    ) -> None:
        self.config, self.device, self.dtype = config, device, dtype

    @cached_property
    def widths(self) -> Widths:
        """Read from the model's config; its weights stay closed."""
        from transformers import AutoConfig

        width = open_part(AutoConfig, self.config.source, self.config.model).get_text_config().hidden_size
        return Widths(width, width if isinstance(self.config, ClipText) else None)

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer, ByT5Tokenizer

        if isinstance(self.config, QuotedText):
            return ByT5Tokenizer()
        return open_part(AutoTokenizer, self.config.source, self.config.tokenizer)

    @cached_property
    def model(self) -> nn.Module:
        return _weights(self.config, self.dtype).requires_grad_(False).eval().to(self.device)

    @cached_property
    def crop(self) -> int:
        """Tokens of the template before the text; UserError when they are not as many as published."""
        if not isinstance(self.config, DecoderText):
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
    def encode(self, texts: Sequence[str]) -> TextEmbedding:
        """`b` texts to tokens `(b, n, d)` of the longest, and pooled `(b, d)` of CLIP; in `dtype`."""
        symbols = self._symbols(texts)
        states = [torch.zeros(0, self.widths.tokens, dtype=self.dtype, device=self.device) for _ in texts]
        pooled: list[Tensor] = [torch.empty(0)] * len(texts)
        order = sorted((i for i in range(len(texts)) if symbols[i]), key=lambda i: len(symbols[i]))
        for piece in (order[k : k + AT_ONCE] for k in range(0, len(order), AT_ONCE)):
            out = self._read([symbols[i] for i in piece])
            for row, i in enumerate(piece):
                states[i] = out.last_hidden_state[row, self.crop : len(symbols[i])].to(self.dtype)
                pooled[i] = out.pooler_output[row] if self.widths.pooled else pooled[i]
        return padded(states, pooled if self.widths.pooled else None)

    def check(self, text: str) -> None:
        """UserError for a text of more than `longest` tokens, of which `encode` reads the first."""
        shown, most = self._shown(text), self.config.longest
        size = len(self.tokenizer(shown, verbose=False).input_ids) - self.crop if shown else 0
        if size > most:
            raise UserError(
                f"a text has {size} tokens and this encoder reads {most}: shorten '{text[:40]}...'"
            )

    def _read(self, symbols: list[list[int]]) -> Any:
        rows = [torch.tensor(row, device=self.device) for row in symbols]
        mask = [torch.ones_like(row) for row in rows]
        return self.model(
            input_ids=pad_sequence(rows, batch_first=True),
            attention_mask=pad_sequence(mask, batch_first=True),
        )

    def _symbols(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text; none for one in which a picture is to show no letters."""
        letters = isinstance(self.config, QuotedText)
        shown = [self._shown(text) for text in texts]
        return [self._tokens(text) if text or not letters else [] for text in shown]

    def _shown(self, text: str) -> str:
        """What is read of a text, or around it."""
        if isinstance(self.config, DecoderText):
            return self.config.template.replace("{}", text)
        return self.config.shown(text) if isinstance(self.config, QuotedText) else text

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, truncation=True, max_length=self.crop + self.config.longest).input_ids


def quoted(text: str) -> str:
    """What stands in double quotes, straight or typographic, with a space between one and the next."""
    return " ".join(part for found in QUOTED.findall(text) for part in found if part)


def padded(states: Sequence[Tensor], pooled: Sequence[Tensor] | None) -> TextEmbedding:
    """Words of texts from each one's tokens `(n, d)` and, perhaps, pooled `(p,)`."""
    lengths = torch.tensor([len(state) for state in states])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    tokens = pad_sequence(list(states), batch_first=True)
    return TextEmbedding(
        tokens,
        None if bool(mask.all()) else mask.to(tokens.device),
        None if pooled is None else torch.stack(list(pooled)),
    )


def _weights(config: TextConfig, dtype: torch.dtype) -> Any:
    """The model of an encoder, as far as it is used."""
    from transformers import AutoConfig, AutoModel, CLIPTextModel, T5EncoderModel, UMT5EncoderModel

    kind: Any = {ClipText: CLIPTextModel, DecoderText: AutoModel}.get(type(config), T5EncoderModel)
    if kind is T5EncoderModel and open_part(AutoConfig, config.source, config.model).model_type == "umt5":
        kind = UMT5EncoderModel
    model = open_whole(kind, config.source, config.model, dtype=dtype)
    if isinstance(config, ClipText) and model.config.max_position_embeddings < config.longest:
        most = model.config.max_position_embeddings
        raise UserError(f"'{config.source}' reads {most} tokens, not {config.longest}: ask for {most}")
    if isinstance(config, DecoderText):
        cut(model, config)
    return model


def open_whole(kind: Any, source: str, part: str, *, dtype: torch.dtype) -> Any:
    """The model of an encoder, a `kind` of transformers; UserError when its file does not hold all of it."""
    given = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    model, about = open_part(kind, source, part, given)
    if about["missing_keys"]:
        raise UserError(
            f"'{source}' lacks '{min(about['missing_keys'])}': it holds no {kind.__name__}, or not all"
        )
    return model


def cut(model: Any, config: DecoderText) -> None:
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
