"""Text embeddings on disk: a model reads each text once, and training does without the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from dreamwalk.conditions.pretrained import EmbeddingDims, TextModel, padded
from dreamwalk.errors import UserError, atomic
from dreamwalk.layers.text import TextEmbedding


@dataclass(eq=False)
class CachedTextModel:
    """A text model whose embeddings are kept in `folder`, one safetensors file for each text (and the image
    that it was read with), without padding.

    They are kept in `dtype`, so a text gives the same embedding the first time and ever after. The SHA-256 of
    the text and of the model's description names the file; several processes may share a folder.
    """

    model: TextModel
    folder: Path
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.bfloat16

    @property
    def dims(self) -> EmbeddingDims:
        return self.model.dims

    def describe(self) -> Any:
        return {"of": self.model.describe(), "kept as": str(self.dtype)}

    def check(self, text: str) -> None:
        self.model.check(text)

    def encode(self, texts: Sequence[str], images: Tensor | None = None) -> TextEmbedding:
        """`b` texts, perhaps with images uint8 `(b or 1, 3, h, w)`, to tokens `(b, n, d)` and pooled.

        UserError for a file that is damaged.
        """
        if images is not None:
            images = images.expand(len(texts), -1, -1, -1)
        paths = [self.path(text, None if images is None else images[i]) for i, text in enumerate(texts)]
        missing = {path: row for row, path in enumerate(paths) if not path.exists()}
        if missing:
            rows = list(missing.values())
            found = self.model.encode([texts[i] for i in rows], None if images is None else images[rows])
            for row, (path, i) in enumerate(missing.items()):
                parts = _parts(found, row)
                kept = {name: part.to("cpu", self.dtype).contiguous() for name, part in parts.items()}
                with atomic(path) as partial:
                    partial.write_bytes(safetensors.torch.save(kept, metadata={"text": texts[i]}))
        read = {path: _read(path) for path in dict.fromkeys(paths)}
        return self._joined([read[path] for path in paths], "")

    def path(self, text: str, image: Tensor | None = None) -> Path:
        """Where the embedding of a text is, or will be."""
        digest = hashlib.sha256(json.dumps([self.describe(), text], sort_keys=True).encode())
        if image is not None:
            digest.update(repr(tuple(image.shape)).encode() + image.cpu().numpy().tobytes())
        name = digest.hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def _joined(self, rows: Sequence[dict[str, Tensor]], prefix: str) -> TextEmbedding:
        """The embedding of a batch, from the parts of each text."""
        tokens = [row[f"{prefix}tokens"].to(self.device) for row in rows]
        pooled = [row[name].to(self.device) for row in rows if (name := f"{prefix}pooled") in row]
        others: list[TextEmbedding] = []
        while f"{prefix}{len(others)}.tokens" in rows[0]:
            others.append(self._joined(rows, f"{prefix}{len(others)}."))
        return padded(tokens, pooled or None)._replace(others=tuple(others))


def _parts(found: TextEmbedding, row: int, prefix: str = "") -> dict[str, Tensor]:
    """What one text of a batch has, by name; of other encoders with their number before it."""
    tokens = found.tokens[row] if found.mask is None else found.tokens[row, found.mask[row]]
    parts = {f"{prefix}tokens": tokens}
    if found.pooled is not None:
        parts[f"{prefix}pooled"] = found.pooled[row]
    for number, other in enumerate(found.others):
        parts |= _parts(other, row, f"{prefix}{number}.")
    return parts


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise UserError(f"'{path}' is damaged ({error}): delete it, and it is made again") from None
