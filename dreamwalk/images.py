"""Pictures of any size, made to fit."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dreamwalk.errors import UserError

Fit = Literal["letterbox", "stretch", "cut"]
"""Another shape is shown whole between black bars, stretched, or cut about its middle."""


def read_picture(path: Path) -> np.ndarray:
    """A picture file, upright, as uint8 `(h, w, 3)`; UserError when it is none."""
    try:
        with Image.open(path) as opened:
            return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"there is no picture at '{path}'") from None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        raise UserError(f"'{path}' is not a picture that can be read") from None


def fit_image(picture: np.ndarray, size: tuple[int, int], how: Fit = "letterbox") -> np.ndarray:
    """A uint8 picture (h, w, 3) scaled to `size` (h, w), as `how` says where its shape is another one."""
    height, width = size
    old_height, old_width = picture.shape[:2]
    if (old_height, old_width) == size:
        return np.ascontiguousarray(picture)
    image = Image.fromarray(np.ascontiguousarray(picture))
    if how == "letterbox":
        scale = min(height / old_height, width / old_width)
        inner = max(1, round(old_width * scale)), max(1, round(old_height * scale))
        canvas = Image.new("RGB", (width, height))
        corner = (width - inner[0]) // 2, (height - inner[1]) // 2
        canvas.paste(image.resize(inner, Image.Resampling.LANCZOS), corner)
        return np.asarray(canvas)
    scale = min(old_height / height, old_width / width)
    across, down = (width * scale, height * scale) if how == "cut" else (old_width, old_height)
    left, top = (old_width - across) / 2, (old_height - down) / 2
    box = (left, top, left + across, top + down)
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box))


def fit_intrinsics(
    intrinsics: np.ndarray, picture: tuple[int, int], size: tuple[int, int], how: Fit = "letterbox"
) -> np.ndarray:
    """The matrix `(3, 3)` of a camera whose pictures of `picture` (h, w) `fit_image` brings to `size`."""
    (height, width), (old_height, old_width) = size, picture
    across, down = width / old_width, height / old_height
    if how != "stretch":
        across = down = min(across, down) if how == "letterbox" else max(across, down)
    left, top = (width - old_width * across) / 2, (height - old_height * down) / 2
    place = np.array([[across, 0, left], [0, down, top], [0, 0, 1]], np.float32)
    return place @ np.asarray(intrinsics, np.float32)


def resample(picture: np.ndarray, places: np.ndarray) -> np.ndarray:
    """A uint8 picture (h, w, 3) looked up, bilinearly, at `places` (h', w', 2) in its pixels, x first, whose
    centres are at a half; beyond its border the border goes on."""
    across, down = np.moveaxis(places - 0.5, -1, 0)
    across, down = np.clip(across, 0, picture.shape[1] - 1), np.clip(down, 0, picture.shape[0] - 1)
    left, top = np.floor(across).astype(int), np.floor(down).astype(int)
    right, bottom = np.minimum(left + 1, picture.shape[1] - 1), np.minimum(top + 1, picture.shape[0] - 1)
    x, y = (across - left)[..., None], (down - top)[..., None]
    upper = (1 - x) * picture[top, left] + x * picture[top, right]
    lower = (1 - x) * picture[bottom, left] + x * picture[bottom, right]
    return np.round((1 - y) * upper + y * lower).astype(np.uint8)
