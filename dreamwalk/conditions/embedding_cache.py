"""Words of texts, kept on disk: an encoder reads each text once, and training does without the encoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from dreamwalk.conditions.text_encoders import Encoder, Widths, padded
from dreamwalk.errors import UserError, atomic
from dreamwalk.layers.text import TextEmbedding


class CachedTextEncoder:
    """An encoder whose words are kept in `folder`, one safetensors file for each text, without padding.

    They are kept in `dtype`, so a text gives the same words the first time and ever after. A file is found by
    the SHA-256 of the text and of what the encoder says it is; several processes may share a folder.
    """

    def __init__(
        self,
        encoder: Encoder,
        folder: Path | str,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self.encoder, self.folder, self.device, self.dtype = encoder, Path(folder), device, dtype

    @property
    def widths(self) -> Widths:
        return self.encoder.widths

    def describe(self) -> Any:
        return {"of": self.encoder.describe(), "kept as": str(self.dtype)}

    def encode(self, texts: Sequence[str]) -> TextEmbedding:
        """`b` texts to tokens `(b, n, d)` and pooled `(b, p)`; UserError for a file that is damaged."""
        paths = {text: self.path(text) for text in texts}
        missing = [text for text, path in paths.items() if not path.exists()]
        if missing:
            words = self.encoder.encode(missing)
            for row, text in enumerate(missing):
                self._write(paths[text], text, _of(words, row))
        kept = {text: _read(path) for text, path in paths.items()}
        parts = [{name: part.to(self.device) for name, part in kept[text].items()} for text in texts]
        pooled = [part["pooled"] for part in parts if "pooled" in part]
        return padded([part["tokens"] for part in parts], pooled or None)

    def path(self, text: str) -> Path:
        """Where the words of a text are, or will be."""
        name = json.dumps([self.describe(), text], sort_keys=True)
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest}.safetensors"

    def _write(self, path: Path, text: str, parts: dict[str, Tensor]) -> None:
        kept = {name: part.to("cpu", self.dtype).contiguous() for name, part in parts.items()}
        with atomic(path) as partial:
            partial.write_bytes(safetensors.torch.save(kept, metadata={"text": text}))


def _of(words: TextEmbedding, row: int) -> dict[str, Tensor]:
    """What one text of a batch has."""
    tokens = words.tokens[row] if words.mask is None else words.tokens[row, words.mask[row]]
    return {"tokens": tokens} | ({} if words.pooled is None else {"pooled": words.pooled[row]})


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise UserError(f"'{path}' is damaged ({error}): delete it, and it is made again") from None
