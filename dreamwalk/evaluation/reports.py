"""The files of a report, alike for all examinations."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def hardware() -> str:
    """What this process runs on."""
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


def write_report(report: dict[str, Any], sheet: np.ndarray, out: Path) -> None:
    """`report.json` and a contact sheet uint8 `(h, w, 3)`, `sheet.png`, into a folder, which is made."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    Image.fromarray(sheet).save(out / "sheet.png")


def picture_row(video: Tensor, moments: np.ndarray) -> np.ndarray:
    """Some frames of a uint8 video `(t, 3, h, w)` side by side, `(h, w', 3)`."""
    return np.concatenate(list(video[moments].permute(0, 2, 3, 1).numpy()), axis=1)
