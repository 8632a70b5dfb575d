"""HunyuanVideo here against diffusers: the same weights, inputs, precision and process, taken in turns.

    python benchmarks/hunyuan.py [--device cuda] [--rounds 9] [--json out.json]

Rows are one step of the transformer, with as many words as there is room for and with a short prompt in that
room, which diffusers carries through and we do not. Times are medians. Peaks of memory are each of a process
of its own: on a processor its largest resident size above that before the step, on a card what was allocated
at most, weights too. When the outputs differ by more than rounding explains, the exit status is 1.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch import Tensor, nn

from dreamwalk.backbones.mmdit import MMDiT, MMDiTConfig
from dreamwalk.distributed import pick_device
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.published.hunyuan import read_hunyuan
from dreamwalk.weights import files
from dreamwalk.weights.config import from_json

Side = Literal["ours", "diffusers"]
Step = Callable[[], Tensor]


@dataclass(frozen=True)
class Options:
    device: Literal["cpu", "cuda"] | None = None
    width: int = 512
    head: int = 128
    dual: int = 4
    single: int = 8
    latents: tuple[int, int, int] = (9, 24, 32)
    """Frames, rows and columns."""
    room: int = 256
    """Words at most; a prompt that fills it, and one of `prompt` words, are measured."""
    prompt: int = 60
    batch: int = 1
    rounds: int = 9
    json: Path | None = None
    """Also write the rows there."""
    peak: Side | None = None
    """Only take one step of this side, with a full prompt, and print the peak of memory in bytes."""

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.place.type == "cuda" else torch.float32

    @property
    def place(self) -> torch.device:
        return pick_device(self.device)


def main(options: Options) -> None:
    if options.peak:
        print(json.dumps(peak(options, options.peak)))
        return
    card = options.place.type == "cuda"
    name = torch.cuda.get_device_name() if card else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}, {options.dtype}")
    rows = [*transformer_rows(options), memory_row(options)]
    for row in rows:
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in row.items()))
    if options.json:
        about = {"hardware": name, **asdict(replace(options, json=None))}
        options.json.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
    if max(row.get("difference", 0.0) for row in rows) > (0.1 if card else 1e-4):
        raise SystemExit("the outputs differ by more than rounding")


def transformer_rows(options: Options) -> list[dict[str, float | str]]:
    """A step of the transformer: milliseconds of both, theirs over ours, and how far apart they are."""
    theirs = diffusers_model(options)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)  # type: ignore[operator]
        tensors, metadata = read_hunyuan(Path(folder))
        ours = MMDiT(from_json(MMDiTConfig, metadata["backbone"])).to(options.dtype)
        files.fill(ours, tensors, source="diffusers")
    theirs, ours = (model.to(options.place).eval() for model in (theirs, ours))
    rows = []
    for prompt in (options.room, options.prompt):
        steps = {"ours": our_step(ours, options, prompt), "diffusers": their_step(theirs, options, prompt)}
        outputs, ms = in_turns(steps, options.rounds)
        row: dict[str, float | str] = {"row": f"a step, {prompt} of {options.room} words"}
        row |= {f"ms {side}": value for side, value in ms.items()}
        row["ratio"] = ms["diffusers"] / ms["ours"]
        scale = outputs["diffusers"].abs().max()
        row["difference"] = ((outputs["ours"] - outputs["diffusers"]).abs().max() / scale).item()
        rows.append(row)
    return rows


def memory_row(options: Options) -> dict[str, float | str]:
    """Peaks of both in processes of their own, and ours over theirs."""
    row: dict[str, float | str] = {"row": "peak of memory"}
    for side in ("ours", "diffusers"):
        given = [f"--{k}={v}" for k, v in asdict(options).items() if isinstance(v, int)]
        given += ["--device", options.place.type, "--latents", *map(str, options.latents), "--peak", side]
        answer = subprocess.run(
            [sys.executable, __file__, *given], check=True, capture_output=True, text=True
        )
        row[f"MiB {side}"] = json.loads(answer.stdout) / 2**20
    return row | {"ratio": row["MiB ours"] / row["MiB diffusers"]}  # type: ignore[operator]


def peak(options: Options, side: Side) -> int:
    """Bytes of one step: above what was there before on a processor, all that is allocated on a card."""
    model = MMDiT(config_of(options)) if side == "ours" else diffusers_model(options)
    model = model.to(options.place, options.dtype).eval()
    step = (our_step if side == "ours" else their_step)(model, options, options.room)
    if options.place.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    step()
    return resident("VmHWM") - before


def resident(field: str) -> int:
    """Bytes of this process in memory: now (`VmRSS`), or at most since that was last cleared (`VmHWM`)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith(field))


def in_turns(steps: dict[str, Step], rounds: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    """What each gives, and its median milliseconds over rounds in which each has its turn."""
    outputs = {side: step() for side, step in steps.items()}
    ms: dict[str, list[float]] = {side: [] for side in steps}
    for _ in range(rounds):
        for side, step in steps.items():
            began = now()
            step()
            ms[side].append(now() - began)
    return outputs, {side: statistics.median(values) for side, values in ms.items()}


def config_of(options: Options) -> MMDiTConfig:
    """The guidance-distilled network for words, in these sizes."""
    return MMDiTConfig(
        width=options.width,
        heads=options.width // options.head,
        double_blocks=options.dual,
        single_blocks=options.single,
        axes=axes_of(options),
        guidance=True,
    )


def axes_of(options: Options) -> tuple[int, int, int]:
    part = options.head // 16 * 7
    return options.head - 2 * part, part, part


def diffusers_model(options: Options) -> nn.Module:
    """Theirs, with weights that keep the size of what passes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import HunyuanVideoTransformer3DModel, logging
    logging.set_verbosity_error()
    torch.manual_seed(0)
    model = HunyuanVideoTransformer3DModel(
        num_attention_heads=options.width // options.head,
        attention_head_dim=options.head,
        num_layers=options.dual,
        num_single_layers=options.single,
        rope_axes_dim=axes_of(options),
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5 * parameter.shape[-1] ** -0.5)
    return model.to(options.dtype)


def inputs(options: Options, prompt: int) -> tuple[Tensor, Tensor, TextEmbedding, Tensor]:
    """Latents of theirs `(b, c, t, h, w)`, level, words and guidance."""
    torch.manual_seed(1)
    b, place = options.batch, options.place
    x, tokens, pooled = (
        torch.randn(b, *shape).to(place, options.dtype)
        for shape in ((16, *options.latents), (options.room, 4096), (768,))
    )
    mask = (torch.arange(options.room, device=place) < prompt).expand(b, -1)
    return (
        x,
        torch.full((b,), 0.5, device=place),
        TextEmbedding(tokens, mask, pooled),
        torch.full((b,), 6.0, device=place),
    )


def our_step(model: nn.Module, options: Options, prompt: int) -> Step:
    x, sigma, words, guidance = inputs(options, prompt)

    @torch.no_grad()
    def step() -> Tensor:
        return model(x.transpose(1, 2), sigma, words, guidance=guidance).transpose(1, 2)

    return step


def their_step(model: nn.Module, options: Options, prompt: int) -> Step:
    x, sigma, words, guidance = inputs(options, prompt)
    k, scale = 1000 * sigma, 1000 * guidance

    @torch.no_grad()
    def step() -> Tensor:
        return model(x, k, words.tokens, words.mask, words.pooled, scale, return_dict=False)[0]

    return step


def now() -> float:
    """Milliseconds, when the card has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1000 * time.perf_counter()


if __name__ == "__main__":
    main(tyro.cli(Options))
