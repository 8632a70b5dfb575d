from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamwalk.conditions.embedding_cache import CachedTextModel
from dreamwalk.conditions.pretrained import EmbeddingDims, padded
from dreamwalk.layers.text import TextEmbedding


class Counting:
    """A token for every letter, which says the letter; `seen` is what it was asked."""

    dims = EmbeddingDims(3, 2)

    def __init__(self, name: str = "letters", *, pooled: bool = True) -> None:
        self.name, self.pooled, self.seen = name, pooled, []

    def describe(self) -> str:
        return self.name

    def encode(self, texts: Sequence[str], images: Tensor | None = None) -> TextEmbedding:
        self.seen += texts
        states = [torch.tensor([[ord(x), len(text), 0.1] for x in text]).reshape(-1, 3) for text in texts]
        return padded(states, [state.sum(0)[:2] / 3 for state in states] if self.pooled else None)


def same(first: TextEmbedding, second: TextEmbedding) -> bool:
    def equal(a: Tensor | None, b: Tensor | None) -> bool:
        return torch.equal(a, b) if a is not None and b is not None else a is b

    return all(equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))


@pytest.mark.parametrize("pooled", [True, False])
def test_a_text_is_read_once(tmp_path: Path, pooled: bool) -> None:
    encoder = Counting(pooled=pooled)
    remembered = CachedTextModel(encoder, tmp_path, dtype=torch.float32)
    texts = ["walk", "", "turn left", "walk"]
    first = remembered.encode(texts)
    assert same(first, Counting(pooled=pooled).encode(texts))
    assert encoder.seen == ["walk", "", "turn left"]
    again = CachedTextModel(encoder, tmp_path, dtype=torch.float32)
    assert same(again.encode(texts), first)
    assert again.encode(["walk"]).mask is None
    assert encoder.seen == ["walk", "", "turn left"]
    assert again.encode(["walk", "go"]).tokens.shape == (2, 4, 3)
    assert encoder.seen[3:] == ["go"]
    assert again.dims == EmbeddingDims(3, 2)


def test_what_is_kept_rounded_is_given_rounded(tmp_path: Path) -> None:
    """Without padding, and the same the first time as later."""
    encoder = Counting()
    remembered = CachedTextModel(encoder, tmp_path)
    first = remembered.encode(["a", "longer"])
    assert first.tokens.dtype == torch.bfloat16
    assert same(first, remembered.encode(["a", "longer"]))
    assert encoder.seen == ["a", "longer"]
    sizes = [path.stat().st_size for path in (remembered.path("a"), remembered.path("longer"))]
    assert sizes[1] - sizes[0] <= 5 * 3 * 2 + 16


def test_other_encoders_and_other_dtypes_are_other_files(tmp_path: Path) -> None:
    first = CachedTextModel(Counting(), tmp_path)
    assert first.path("walk") != first.path("walk ")
    assert first.path("walk") != CachedTextModel(Counting("other"), tmp_path).path("walk")
    assert first.path("walk") != CachedTextModel(Counting(), tmp_path, dtype=torch.float16).path("walk")
    assert first.path("walk") == CachedTextModel(Counting(), tmp_path).path("walk")


def test_several_may_write_at_once(tmp_path: Path) -> None:
    texts = [str(k) for k in range(8)]
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda _: CachedTextModel(Counting(), tmp_path).encode(texts), range(6)))
    assert all(same(words, made[0]) for words in made)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 8
    assert not [path for path in files if path.suffix != ".safetensors"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    remembered = CachedTextModel(Counting(), tmp_path)
    remembered.encode(["walk"])
    path = remembered.path("walk")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"is damaged .* delete it, and it is made again"):
        remembered.encode(["walk"])
