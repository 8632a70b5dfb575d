"""Pictures of any size, made to fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dreamwalk.errors import UserError


def read_picture(path: Path) -> np.ndarray:
    """A picture file, upright, as uint8 `(h, w, 3)`; UserError when it is none."""
    try:
        with Image.open(path) as opened:
            return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"there is no picture at '{path}'") from None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        raise UserError(f"'{path}' is not a picture that can be read") from None


def fit(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A uint8 picture (h, w, 3) cut about its middle to the shape of `size` (h, w) and scaled to it."""
    height, width = size
    old_height, old_width = picture.shape[:2]
    if (old_height, old_width) == size:
        return np.ascontiguousarray(picture)
    scale = min(old_height / height, old_width / width)
    across, down = width * scale, height * scale
    left, top = (old_width - across) / 2, (old_height - down) / 2
    box = (left, top, left + across, top + down)
    image = Image.fromarray(np.ascontiguousarray(picture)).resize(
        (width, height), Image.Resampling.LANCZOS, box
    )
    return np.asarray(image)
