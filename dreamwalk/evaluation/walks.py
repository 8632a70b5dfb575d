"""The examination: every system is asked the same questions on the same held-out walks.

dreamwalk evaluate nextframe.doom --data data/home-test
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dreamwalk.clip import Clip, batch
from dreamwalk.data.shards import Shards
from dreamwalk.errors import UserError
from dreamwalk.evaluation import plots as pictures
from dreamwalk.evaluation.control import Columns, measure_control
from dreamwalk.evaluation.fidelity import Rollout, psnr, roll_out, sharpness, ssim
from dreamwalk.evaluation.reports import hardware, write_report
from dreamwalk.evaluation.speed import time_dream
from dreamwalk.systems.inverse import Inverse
from dreamwalk.systems.system import System
from dreamwalk.systems.walkable import Walkable
from dreamwalk.world import ActionSchema

HORIZONS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class EvaluateWalks:
    """Examine a system on held-out walks: pictures, numbers and plots into a folder."""

    data: str = "data/doom-test"
    """Clips that were not trained on, as `dreamwalk collect --split test` writes them."""
    out: Path = Path("runs/examination")
    clips: int = 32
    """How many walks."""
    frames: int | None = None
    """Longest horizon; default: 64, or as far as the longest walks go."""
    history: int = 4
    """Real frames that a dream begins from."""
    inverse: str = "inverse.doom"
    """Inverse-dynamics model that reads the actions back; empty for none."""
    report: Literal["walks", "places", "objects", "revisits", "codebook"] = "walks"
    """What is asked: how walks go on; what stays of places, of things or until one comes back; or what the
    vocabulary of a codec costs. Others than the first have flags of their own."""
    seed: int = 0


def evaluate_walks(
    system: System, asked: EvaluateWalks, *, name: str, inverse: Inverse | None = None
) -> dict[str, Any]:
    """Fidelity, control and speed; prints the tables, writes `report.json`, pictures and plots into `out`.

    UserError for a system that cannot go on frame after frame.
    """
    if not isinstance(system, Walkable):
        raise UserError(f"'{name}' cannot go on frame after frame, so there is no dream to examine")
    if asked.clips < 1 or asked.history < 1 or (asked.frames is not None and asked.frames < 1):
        raise UserError("`--clips`, `--frames` and `--history` are at least 1")
    shards, out, seed, history = Shards(asked.data), asked.out, asked.seed, asked.history
    if shards.schema.size != system.action_size:
        raise UserError(
            f"'{asked.data}' has {shards.schema.size} actions and '{name}' knows {system.action_size}: "
            "give `--data` clips of its own game"
        )
    walks = _walks(shards, asked, history, depth=system.config.needs_depth)
    rollout = roll_out(system, walks, history=history, seed=seed)
    curves = _curves(rollout)
    report: dict[str, Any] = {"name": name, "data": asked.data, "walks": len(walks)}
    report |= {fact: shards.manifest.get(fact, "") for fact in ("world", "level", "split")}
    report |= {"history": history, "seed": seed, "passes": system.passes}
    report["hardware"] = hardware()
    report["psnr"] = {key: _at(values) for key, values in curves["PSNR (dB)"].items()}
    report["ssim"] = {key: _at(values) for key, values in curves["SSIM"].items()}
    sharp = {"dream": rollout.dream, "real": rollout.truth}
    report["measured"] = measured_of(system, walks)
    report["sharpness"] = {key: _at(sharpness(video).mean(0)) for key, video in sharp.items()}
    if inverse is not None:
        report["control"] = _control(inverse, rollout, shards.schema)
    if system.world_spec is not None:
        world = system.world(seed=seed)
        report["speed"] = [asdict(time_dream(world, steps=steps)) for steps in system.timed_steps]
    write_report(report, pictures.contact_sheet(rollout), out)
    pictures.horizon_plot(curves, out / "horizon.png", title=f"{name} on {len(walks)} held-out walks")
    _print(report)
    return report


def _walks(shards: Shards, asked: EvaluateWalks, history: int, *, depth: bool) -> list[Clip]:
    """The first clips that are long enough, cut to the history and the longest horizon."""
    lengths = [shards.frames_of(index) for index in range(len(shards))] or [0]
    frames = history + (asked.frames or max(1, min(HORIZONS[-1], max(lengths) - history)))
    long = [index for index, length in enumerate(lengths) if length >= frames][: asked.clips]
    if not long:
        mend = "use a smaller `--frames`" if asked.frames else "use a smaller `--history`"
        raise UserError(f"the longest walk has {max(lengths)} frames and {frames} are needed: {mend}")
    return [shards.window(index, 0, frames, depth=depth) for index in long]


def measured_of(system: Walkable, walks: list[Clip]) -> dict[str, float]:
    """What only systems of a kind have, on average over walks."""
    rows = [system.measured(batch([walk])) for walk in walks]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _curves(rollout: Rollout) -> dict[str, dict[str, np.ndarray]]:
    shown = {"ceiling (codec)": rollout.ceiling, "dream": rollout.dream, "floor (copy last)": rollout.floor}
    curves: dict[str, dict[str, np.ndarray]] = {}
    for label, measure in {"PSNR (dB)": psnr, "SSIM": ssim}.items():
        curves[label] = {name: measure(video, rollout.truth).mean(0) for name, video in shown.items()}
    return curves


def _control(inverse: Inverse, rollout: Rollout, schema: ActionSchema) -> dict[str, dict[str, Any]]:
    """Control over the first 4, 16 and 64 frames, of the dream and of the real frames; empty for data with
    neither yaw nor `forward`."""
    rows: dict[str, dict[str, Any]] = {}
    if Columns.of(schema) == Columns(None, 1.0, None):
        return rows
    for horizon in (h for h in (4, 16, 64) if h <= rollout.truth.shape[1]):
        read = measure_control(inverse, rollout.until(horizon), schema=schema)
        rows |= {f"{who}, {horizon} frames": asdict(control) for who, control in read.items()}
    return rows


def _at(curve: np.ndarray) -> dict[str, float]:
    """A curve's values at the horizons of the tables."""
    known = [horizon for horizon in HORIZONS if horizon <= len(curve)]
    return {str(horizon): round(float(curve[horizon - 1]), 4) for horizon in known}


def _print(report: dict[str, Any]) -> None:
    """Print a report as tables."""
    print(
        f"{report['name']} on {report['walks']} walks of '{report['level']}' ({report['split']}), "
        f"{report['history']} frames of history, {report['passes']:g} passes a frame, "
        f"seed {report['seed']}"
    )
    for measure in ("psnr", "ssim", "sharpness"):
        for row, values in report[measure].items():
            columns = "".join(f"{horizon:>4}: {value:<8.3f}" for horizon, value in values.items())
            print(f"  {measure:9} {row:18}{columns}")
    if report.get("control") == {}:
        print("  control   not measured: these data have neither yaw nor forward to read back")
    if report["measured"]:
        print("  a frame   " + ", ".join(f"{name} {value:.1f}" for name, value in report["measured"].items()))
    for who, control in report.get("control", {}).items():
        print(f"  control   {who:16} {_control_line(control)}")
    for speed in report.get("speed", []):
        stages = ", ".join(f"{stage} {value:.1f} ms" for stage, value in speed["milliseconds"].items())
        print(f"  speed     {speed['steps']} passes: {speed['fps']:.1f} fps ({stages})")


def _control_line(control: dict[str, Any]) -> str:
    """A row of `report["control"]` as text, also what of it could not be measured."""
    sign, error, walking = (control[name] for name in ("yaw_sign", "yaw_error", "walking"))
    turns = f"{control['turning_frames'] or 'no'} turning frames"
    turns = turns if sign is None else f"yaw sign right {sign:.1%} of {turns}"
    yaw = "yaw not measured" if error is None else f"{turns}, yaw error {error:.2f} degrees"
    return f"{yaw}, " + ("forward not measured" if walking is None else f"forward read {walking:.1%}")
