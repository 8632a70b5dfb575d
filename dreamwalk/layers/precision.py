"""Arithmetic that stays exact inside a loss that is computed in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float32_arithmetic() -> Iterator[None]:
    """No autocast within, as a block or as a decorator: where things lie is lost in bfloat16."""
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield
