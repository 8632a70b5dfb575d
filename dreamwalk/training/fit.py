"""The training loop, plainly: build, shard, resume, and step until done.

Batches, noise and learning rate are functions of the seed and the step alone, so a run killed at any step and
resumed gives what it would have given, and so do two processes instead of one.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.utils.checkpoint import checkpoint as checkpointed

from dreamwalk import distributed
from dreamwalk.clip import Clip
from dreamwalk.data.latents import Latents
from dreamwalk.data.shards import Shards
from dreamwalk.distributed import Process
from dreamwalk.errors import UserError, require_writable
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems.open import init_from, load_codec
from dreamwalk.systems.system import System
from dreamwalk.training import checkpoint
from dreamwalk.training.batches import DataToFit, batches, check_latents, looked_at, open_data, rows
from dreamwalk.training.flops import count_flops, peak_flops
from dreamwalk.training.logger import Logger
from dreamwalk.training.optim import EMA, build_optimizers, rate, set_rate
from dreamwalk.training.run import Run
from dreamwalk.training.signals import Stopping
from dreamwalk.training.world_spec import walkable
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json


@dataclass
class Training:
    """What changes while a run goes on."""

    system: System
    optimizers: list[torch.optim.Optimizer]
    average: EMA
    step: int = 0

    @property
    def trained(self) -> dict[str, Tensor]:
        return {name: p for name, p in self.system.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def put(self, values: Mapping[str, Tensor]) -> None:
        """Copy values into the trained parameters."""
        for name, p in self.trained.items():
            p.copy_(values[name])

    def state(self) -> dict[str, Any]:
        model, optim = get_state_dict(self.system, self.optimizers)
        return {
            "model": model,
            "optim": optim,
            "average": self.average.values,
            "step": torch.tensor(self.step),
        }

    def restore(self, folder: Path, step: int) -> None:
        state = self.state()
        checkpoint.load(folder, step, state)
        set_state_dict(
            self.system, self.optimizers, model_state_dict=state["model"], optim_state_dict=state["optim"]
        )
        self.step = int(state["step"])


def fit(
    run: Run,
    folder: Path,
    *,
    resume: bool = False,
    minutes: float = math.inf,
    device: str | None = None,
    wandb: bool = False,
) -> Path:
    """Train until `run.steps`, or for `minutes`; returns the exported file `folder/weights.safetensors`.

    Ctrl-C and SIGTERM save the step that the run is at and then end it (KeyboardInterrupt, SystemExit).
    UserError: the folder already holds a run and `resume` is off (or the reverse), the data do not fit, or
    the loss stops being finite; then the last good state is kept as a checkpoint.
    """
    run.check()
    if not minutes >= 0:
        raise UserError(f"`--minutes` lies from 0 up, got {minutes}")
    found = checkpoint.latest(folder)
    if found is not None and not resume:
        raise UserError(
            f"'{folder}' already holds a run at step {found}: add `--resume`, or choose another `--out`"
        )
    require_writable(folder)
    place = distributed.start(device)
    data = open_data(run)
    if isinstance(data, Shards):
        run = replace(run, system=run.system.sized(data.schema, data.size))
    training = _build(run, data, place, fresh=found is None)
    if found is not None:
        training.restore(folder, found)
    deadline = time.monotonic() + 60 * minutes
    journal = None
    if place.first:
        journal = Logger(folder, run, wandb=wandb, first=training.step, deadline=deadline)
        journal.introduce(training.system, data, place, lower=_lower(run, place))
    try:
        with Stopping(deadline) as stopping:
            _loop(run, training, data, place=place, journal=journal, folder=folder, stopping=stopping)
            distributed.wait_for_all()
    finally:
        if journal is not None:
            journal.close()
        distributed.stop()
    if stopping.asked and place.first:
        print(f"stopped at step {training.step}, saved: go on with `--resume`", file=sys.stderr)
    stopping.leave()
    return folder / "weights.safetensors"


def _build(run: Run, data: Shards | Latents, place: Process, *, fresh: bool) -> Training:
    """System, shards of it, optimizers and average, at step 0."""
    torch.manual_seed(run.seed)
    system = run.system.build()
    if run.codec:
        load_codec(system, run.codec)
    if run.start:
        init_from(system, run.start)
    if isinstance(data, Latents):
        check_latents(data, system)
    else:
        _prepare(run, data, system, fresh=fresh)
    system.to(place.device)
    for block in system.blocks:
        if run.checkpoint_blocks:
            _recompute(block)
        if run.compile_blocks:
            block.compile()
    distributed.shard(system, system.blocks, place)
    optimizers = build_optimizers(system, system.blocks, run.optim)
    trained = {name: p for name, p in system.named_parameters() if p.requires_grad}
    return Training(system, optimizers, EMA(trained, decay=run.ema))


def _prepare(run: Run, shards: Shards, system: System, *, fresh: bool) -> None:
    """Set what is computed from clips, not learnt along."""
    if fresh:
        system.fit_from_data(DataToFit(run, shards))


def _recompute(block: nn.Module) -> None:
    """Keep only the block's inputs and compute its activations again when going back."""
    forward = block.forward
    block.forward = lambda *inputs: checkpointed(forward, *inputs, use_reentrant=False)


def _loop(
    run: Run,
    training: Training,
    data: Shards | Latents,
    *,
    place: Process,
    journal: Logger | None,
    folder: Path,
    stopping: Stopping,
) -> None:
    starts, about = walkable(data).pack() if place.first and isinstance(data, Shards) else ({}, {})
    if training.step >= run.steps:  # it was killed between its last checkpoint and this
        _export(run, training, folder, place, starts=starts, about=about)
        return
    if training.step == 0:
        _preview(run, training, data, place, journal)
    counts = peak_flops(place.device) is not None
    for clip in batches(run, data, place, first=training.step):
        clip = clip.to(place.device)
        if counts:
            flops, counts = _flops(run, training, clip, place), False
            if journal:
                journal.flops = flops
        told = _step(run, training, clip, place, folder)
        asked = distributed.any_process(stopping.asked is not None)
        last = training.step == run.steps or asked or distributed.any_process(stopping.late)
        if journal:
            journal.tell(training.step, told, last=last)
        if training.step % run.save_every == 0 or last:
            checkpoint.save(folder, training.step, training.state(), keep=run.keep, place=place)
            _export(run, training, folder, place, starts=starts, about=about)
        if (training.step % run.preview_every == 0 or last) and not asked:
            _preview(run, training, data, place, journal)
        if last:
            return


def _lower(run: Run, place: Process) -> bool:
    """Whether the arithmetic is in bfloat16."""
    return run.precision == "bfloat16" or (run.precision == "auto" and place.device.type == "cuda")


def _loss(run: Run, training: Training, clip: Clip, place: Process) -> dict[str, Tensor]:
    """The terms of the loss at the step that comes."""
    generator = KeyedGenerator(
        [(run.seed, training.step, row) for row in rows(run, place)], device=place.device
    )
    with torch.autocast(place.device.type, torch.bfloat16, enabled=_lower(run, place)):
        return training.system.loss(clip, generator)


def _flops(run: Run, training: Training, clip: Clip, place: Process) -> float:
    """Of a step, over all processes."""
    return 1.0 * place.world * count_flops(training.system, lambda: _loss(run, training, clip, place)["loss"])


def _step(run: Run, training: Training, clip: Clip, place: Process, folder: Path) -> dict[str, float]:
    """One step of gradient descent; returns what was measured, averaged over processes."""
    terms = _loss(run, training, clip, place)
    terms["loss"].backward()
    norm = nn.utils.clip_grad_norm_(training.trained.values(), run.optim.clip)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    told = {name: float(distributed.mean_over_processes(value)) for name, value in terms.items()}
    if not math.isfinite(told["loss"]) or not math.isfinite(float(norm)):
        checkpoint.save(folder, training.step, training.state(), keep=run.keep, place=place)
        raise UserError(
            f"the loss is not finite at step {training.step + 1}; the state before it is kept in "
            f"'{folder / 'checkpoints' / f'{training.step:08d}'}': resume with a smaller `--optim.lr`"
        )
    share = rate(training.step, steps=run.steps, config=run.optim)
    set_rate(training.optimizers, share * run.optim.lr)
    for optimizer in training.optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    training.step += 1
    training.average.update(training.trained, step=training.step)
    return told | {"gradient": float(norm), "rate": share}


def _averaged(training: Training) -> dict[str, Tensor]:
    """All tensors of the system with the averaged weights in place of the trained ones, gathered whole."""
    full: dict[str, Any] = get_model_state_dict(
        training.system, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    for name, value in training.average.values.items():
        whole = value.full_tensor() if hasattr(value, "full_tensor") else value
        full[name] = whole.cpu()
    return full


def _export(
    run: Run, training: Training, folder: Path, place: Process, *, starts: dict[str, Tensor], about: dict
) -> None:
    """The averaged weights with all that a dream needs, as a file that opens itself."""
    tensors = _averaged(training)
    if not place.first:
        return
    metadata = {
        "system": training.system.name,
        "config": to_json(run.system),
        "run": to_json(run),
        "step": training.step,
    }
    if about:
        metadata["walkable"] = about
    files.save(folder / "weights.safetensors", tensors | starts, metadata=metadata)


def _preview(
    run: Run, training: Training, data: Shards | Latents, place: Process, journal: Logger | None
) -> None:
    """A sample video from the averaged weights."""
    with _whole(run, training, place) as system:
        if journal:
            clip, truth = looked_at(run, data, system)
            with torch.no_grad():
                journal.show(training.step, truth, system.preview(clip))


@contextmanager
def _whole(run: Run, training: Training, place: Process) -> Iterator[System]:
    """The system with its averaged weights; of a sharded one a whole copy, which the first process fills."""
    if place.world > 1:
        tensors = _averaged(training)
        with torch.random.fork_rng(devices=[]):
            copy = run.system.build() if place.first else training.system
        if place.first:
            files.fill(copy, tensors, source="this run")
            copy.to(place.device).eval()
        yield copy
        return
    own = {name: p.detach().clone() for name, p in training.trained.items()}
    try:
        training.put(training.average.values)
        yield training.system
    finally:
        training.put(own)
