"""A small text encoder that is trained with the system: bytes in, one token a word out.

Bytes need no vocabulary (ByT5, arXiv 2105.13626), but they make sequences long. So a few blocks attend over
bytes, each word becomes the mean of its bytes (CANINE, arXiv 2103.06874, downsamples in the same place), and
one more block attends over words: "walk through a brick hall" is five tokens and an end token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from dreamwalk.conditions.frozen import TextEncoder
from dreamwalk.errors import UserError
from dreamwalk.layers.attention import SelfAttention, SwiGLU
from dreamwalk.layers.norms import RMSNorm
from dreamwalk.layers.rope import head_width, time_tables
from dreamwalk.layers.text import TextEmbedding

SPACE = ord(" ")
END = 256
"""End token: follows the bytes of every text, and is a word by itself."""
NO_WORD = -1


@dataclass(frozen=True)
class ByteEncoderConfig:
    """Sizes of a byte encoder."""

    width: int
    """Of a word's embedding, and of all blocks."""
    depth: int = 2
    """Blocks over bytes."""
    word_depth: int = 1
    """Blocks over words."""
    heads: int = 4
    max_length: int = 384
    """Bytes of a text, at most."""
    pooled_dim: int | None = None
    """Size of the pooled embedding; None: there is none."""

    def __post_init__(self) -> None:
        head_width(self.width, self.heads)

    def build(self) -> ByteEncoder:
        """The encoder, with fresh weights."""
        return ByteEncoder(self)


class ByteEncoderBlock(nn.Module):
    """Attention in both directions and feed-forward, each normalised first."""

    def __init__(self, config: ByteEncoderConfig) -> None:
        super().__init__()
        self.norm_attention = RMSNorm(config.width)
        self.attention = SelfAttention(config.width, heads=config.heads, qk_norm=True)
        self.norm_feedforward = RMSNorm(config.width)
        self.feedforward = SwiGLU(config.width, multiple=64)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """`x` `(b, n, d)`, `mask` bool `(b, 1, 1, n)` or None."""
        x = x + self.attention(self.norm_attention(x), rope, mask=mask, past=None)[0]
        return x + self.feedforward(self.norm_feedforward(x))


class ByteEncoder(TextEncoder):
    """Texts to `TextEmbedding`: a token of `width` for each word, and an end token. Case makes no difference.

    An empty text is the end token alone, which stands for the unconditional.
    """

    lr_factor = 0.1
    """Factor of the learning rate: while the backbone ignores the text, the gradient here is noise, which
    Adam amplifies until all words are alike."""

    def __init__(self, config: ByteEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(END + 1, config.width)
        self.byte_blocks = nn.ModuleList(ByteEncoderBlock(config) for _ in range(config.depth))
        self.to_words = nn.Linear(config.width, config.width)
        self.word_blocks = nn.ModuleList(ByteEncoderBlock(config) for _ in range(config.word_depth))
        self.norm = RMSNorm(config.width)
        self.to_pooled = nn.Linear(config.width, config.pooled_dim) if config.pooled_dim else None
        self.max_bytes = config.max_length

    def forward(self, texts: Sequence[str], images: Tensor | None = None) -> TextEmbedding:
        """`b` texts to tokens `(b, n, width)`, where the longest has `n - 1` words, and pooled `(b, p)`.

        UserError for a text of more than `max_length` bytes.
        """
        symbols, word, read = indices(texts, self.config.max_length)
        last = word.amax(1, keepdim=True)
        numbers = torch.arange(int(last.max()) + 1)
        belongs = (word[:, None] == numbers[:, None]).to(self.embed.weight)
        present = self._mask(numbers <= last)
        x = self._through(self.byte_blocks, self.embed(symbols.to(belongs.device)), self._mask(read))
        x = self.to_words(belongs @ x / belongs.sum(-1, keepdim=True).clamp(min=1))
        tokens = self.norm(self._through(self.word_blocks, x, present))
        if self.to_pooled is None:
            return TextEmbedding(tokens, present)
        share = (numbers <= last).to(tokens)
        mean = (tokens * share[..., None]).sum(1) / share.sum(1, keepdim=True)
        return TextEmbedding(tokens, present, self.to_pooled(mean))

    def check(self, text: str) -> None:
        """UserError for a text of more than `max_length` bytes."""
        indices([text], self.config.max_length)

    def _mask(self, present: Tensor) -> Tensor | None:
        return None if bool(present.all()) else present.to(self.embed.weight.device)

    def _through(self, blocks: nn.ModuleList, x: Tensor, present: Tensor | None) -> Tensor:
        times = torch.arange(x.shape[1], device=x.device)
        rope = time_tables(times, head_width=self.config.width // self.config.heads)
        mask = None if present is None else present[:, None, None]
        for block in blocks:
            x = block(x, rope, mask)
        return x


def indices(texts: Sequence[str], max_length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Symbols, the number of the word that each is in (spaces: `NO_WORD`), and where a text has any.

    All `(b, n)`, for the longest text of `n - 1` bytes. UserError for one of more than `max_length` bytes.
    """
    symbols, words = [], []
    for text in texts:
        written = " ".join(text.lower().split()).encode()
        if (size := len(written)) > max_length:
            raise UserError(f"a text has {size} bytes and {max_length} are read: shorten '{text[:40]}...'")
        symbol = torch.tensor([*written, END])
        number = (symbol == SPACE).cumsum(0) + int(len(written) > 0) * (symbol == END)
        symbols.append(symbol)
        words.append(number.masked_fill(symbol == SPACE, NO_WORD))
    padded = pad_sequence(symbols, batch_first=True, padding_value=NO_WORD)
    word = pad_sequence(words, batch_first=True, padding_value=NO_WORD)
    return padded.clamp(min=0), word, padded != NO_WORD
