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
from dreamwalk.training.batches import DataToFit, batches, check_latents, local_rows, open_data, preview_batch
from dreamwalk.training.flops import count_flops, peak_flops
from dreamwalk.training.logger import Logger
from dreamwalk.training.optim import EMA, build_optimizers, lr_scale, set_lr
from dreamwalk.training.run import Run
from dreamwalk.training.signals import Stopping
from dreamwalk.training.world_spec import world_spec
from dreamwalk.weights import files
from dreamwalk.weights.config import to_json


@dataclass
class Training:
    """A run under way, in this process."""

    run: Run
    folder: Path
    process: Process
    system: System
    optimizers: list[torch.optim.Optimizer]
    ema: EMA
    step: int = 0

    @property
    def trained(self) -> dict[str, Tensor]:
        return {name: p for name, p in self.system.named_parameters() if p.requires_grad}

    def state(self) -> dict[str, Any]:
        model, optim = get_state_dict(self.system, self.optimizers)
        return {"model": model, "optim": optim, "average": self.ema.values, "step": torch.tensor(self.step)}

    def restore(self, step: int) -> None:
        state = self.state()
        checkpoint.read_checkpoint(self.folder, step, state)
        model, optim = state["model"], state["optim"]
        set_state_dict(self.system, self.optimizers, model_state_dict=model, optim_state_dict=optim)
        self.step = int(state["step"])

    def save(self) -> None:
        keep, process = self.run.keep, self.process
        checkpoint.write_checkpoint(self.folder, self.step, self.state(), keep=keep, process=process)

    @property
    def bfloat16(self) -> bool:
        """Whether the arithmetic is in bfloat16."""
        on_card = self.process.device.type == "cuda"
        return self.run.precision == "bfloat16" or (self.run.precision == "auto" and on_card)

    def loss(self, clip: Clip) -> dict[str, Tensor]:
        """The terms of the loss of the next step."""
        device = self.process.device
        keys = [(self.run.seed, self.step, row) for row in local_rows(self.run, self.process)]
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.system.loss(clip, KeyedGenerator(keys, device=device))

    def flops(self, clip: Clip) -> float:
        """Of a step, over all processes."""
        return 1.0 * self.process.world_size * count_flops(self.system, lambda: self.loss(clip)["loss"])

    def advance(self, clip: Clip) -> dict[str, float]:
        """One step of gradient descent; returns what was measured, averaged over processes.

        UserError for a loss that is not finite; the state before it is kept as a checkpoint.
        """
        terms, optim = self.loss(clip), self.run.optim
        terms["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.trained.values(), optim.clip)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        values = {name: float(distributed.mean_over_processes(value)) for name, value in terms.items()}
        if not math.isfinite(values["loss"]) or not math.isfinite(float(norm)):
            self.save()
            raise UserError(
                f"the loss is not finite at step {self.step + 1}; the state before it is kept in "
                f"'{checkpoint.path_of(self.folder, self.step)}': resume with a smaller `--optim.lr`"
            )
        scale = lr_scale(self.step, steps=self.run.steps, config=optim)
        set_lr(self.optimizers, scale * optim.lr)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.ema.update(self.trained, step=self.step)
        return values | {"gradient": float(norm), "rate": scale}

    def averaged(self) -> dict[str, Tensor]:
        """All tensors of the system with averaged in place of trained weights, gathered whole."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        full: dict[str, Any] = get_model_state_dict(self.system, options=options)
        for name, value in self.ema.values.items():
            whole = value.full_tensor() if hasattr(value, "full_tensor") else value
            full[name] = whole.cpu()
        return full

    def export(self, starts: dict[str, Tensor], about: dict[str, Any]) -> None:
        """The averaged weights with all that a dream needs, as a file that opens itself."""
        tensors = self.averaged()
        if not self.process.is_main:
            return
        run = {"config": to_json(self.run.system), "run": to_json(self.run), "step": self.step}
        metadata = {"system": self.system.name} | run | ({"world_spec": about} if about else {})
        files.save(self.folder / "weights.safetensors", tensors | starts, metadata=metadata)

    @contextmanager
    def averaged_system(self) -> Iterator[System]:
        """The system with its averaged weights; of a sharded one a whole copy, in the main process."""
        if self.process.world_size > 1:
            tensors = self.averaged()
            with torch.random.fork_rng(devices=[]):
                copy = self.run.system.build() if self.process.is_main else self.system
            if self.process.is_main:
                files.fill(copy, tensors, source="this run")
                copy.to(self.process.device).eval()
            yield copy
            return
        own = {name: p.detach().clone() for name, p in self.trained.items()}
        try:
            self._put(self.ema.values)
            yield self.system
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, p in self.trained.items():
            p.copy_(values[name])


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
    process, data = distributed.start(device), open_data(run)
    if isinstance(data, Shards):
        run = replace(run, system=run.system.sized(data.schema, data.size))
    training = _build(run, folder, data, process, fresh=found is None)
    if found is not None:
        training.restore(found)
    deadline, logger = time.monotonic() + 60 * minutes, None
    if process.is_main:
        logger = Logger(folder, run, wandb=wandb, first=training.step, deadline=deadline)
        logger.introduce(training.system, data, process, "bfloat16" if training.bfloat16 else "float32")
    try:
        with Stopping(deadline) as stopping:
            _loop(training, data, logger, stopping)
            distributed.wait_for_all()
    finally:
        if logger is not None:
            logger.close()
        distributed.stop()
    if stopping.asked and process.is_main:
        print(f"stopped at step {training.step}, saved: go on with `--resume`", file=sys.stderr)
    stopping.leave()
    return folder / "weights.safetensors"


def _build(run: Run, folder: Path, data: Shards | Latents, process: Process, *, fresh: bool) -> Training:
    """System, shards of it, optimizers and average, at step 0."""
    torch.manual_seed(run.seed)
    system = run.system.build()
    if run.codec:
        load_codec(system, run.codec)
    if run.start:
        init_from(system, run.start)
    if isinstance(data, Latents):
        check_latents(data, system)
    elif fresh:
        system.fit_from_data(DataToFit(run, data))
    system.to(process.device)
    for block in system.blocks:
        if run.checkpoint_blocks:
            _recompute(block)
        if run.compile_blocks:
            block.compile()
    distributed.shard(system, system.blocks, process)
    optimizers = build_optimizers(system, system.blocks, run.optim)
    trained = {name: p for name, p in system.named_parameters() if p.requires_grad}
    return Training(run, folder, process, system, optimizers, EMA(trained, decay=run.ema))


def _recompute(block: nn.Module) -> None:
    """Keep only the block's inputs and compute its activations again when going back."""
    forward = block.forward
    block.forward = lambda *inputs: checkpointed(forward, *inputs, use_reentrant=False)


def _loop(training: Training, data: Shards | Latents, logger: Logger | None, stopping: Stopping) -> None:
    run, process = training.run, training.process
    starts, about = world_spec(data).pack() if process.is_main and isinstance(data, Shards) else ({}, {})
    if training.step >= run.steps:  # it was killed between its last checkpoint and this
        training.export(starts, about)
        return
    if training.step == 0:
        _preview(training, data, logger)
    counts = peak_flops(process.device) is not None
    for clip in batches(run, data, process, first=training.step):
        clip = clip.to(process.device)
        if counts:
            flops, counts = training.flops(clip), False
            if logger:
                logger.flops = flops
        values = training.advance(clip)
        asked = distributed.any_process(stopping.asked is not None)
        last = training.step == run.steps or asked or distributed.any_process(stopping.late)
        if logger:
            logger.log(training.step, values, last=last)
        if training.step % run.save_every == 0 or last:
            training.save()
            training.export(starts, about)
        if (training.step % run.preview_every == 0 or last) and not asked:
            _preview(training, data, logger)
        if last:
            return


def _preview(training: Training, data: Shards | Latents, logger: Logger | None) -> None:
    """A sample video from the averaged weights."""
    with training.averaged_system() as system:
        if logger:
            clip, truth = preview_batch(training.run, data, system)
            with torch.no_grad():
                logger.show(training.step, truth, system.preview(clip))
