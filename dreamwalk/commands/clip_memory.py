"""Check that a clip fits in memory before its weights are loaded, and advise what makes it fit."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import get_args

import torch

from dreamwalk.commands.sample import SampleClip
from dreamwalk.device.budget import GIB, HOST, MemoryPlan, free_bytes, memory_plan, offloaded
from dreamwalk.device.offload import Offload, Offloading
from dreamwalk.errors import UserError
from dreamwalk.systems.clip_generator import ClipGenerator

LARGE = 2 * GIB
"""From which on a clip's plan is shown."""
TILE = 256
"""Pixels a side of the tiles that are advised."""
WAYS: tuple[Offloading, ...] = get_args(Offloading)
SIGNS = ("can't allocate memory", "out of memory")
"""In what allocators say."""


def require_pictures(asked: SampleClip, system: ClipGenerator) -> None:
    """UserError for a clip whose frames alone do not fit in memory, before its inputs are read."""
    (height, width), frames = asked.request.size or system.config.size, asked.request.frames
    size, free = 12 * (frames or system.config.frames) * height * width, free_bytes(HOST)
    if free is not None and size > max(free, LARGE):
        raise UserError(
            f"the pictures of this clip take {size / GIB:.1f} GiB of memory, and {free / GIB:.1f} GiB are "
            "free: ask for fewer `--frames` or a smaller `--size`"
        )


def require_room(asked: SampleClip, system: ClipGenerator, device: torch.device) -> None:
    """Show on stderr what a large clip takes; UserError that names what mends it for one without room.

    `asked` is opened; `system` may be on the meta device. UserErrors as of `ClipGenerator.check`.
    """
    whole = whole_plan(asked, system)
    plan = kept(whole, system, asked.offload)
    if plan.peak + plan.host >= LARGE:
        print(plan.show(), file=sys.stderr)
    if lack := lacking(plan, device):
        raise UserError(f"{lack}: {mend(asked, system, whole, device)}")


def whole_plan(asked: SampleClip, system: ClipGenerator) -> MemoryPlan:
    """The plan of a clip that has all blocks on the device."""
    request, (_, down, across) = asked.request, system.codec.stride
    system.check(request)
    height, width = request.area or (0, 0)
    shape, tokens = system.latent_shape(request)[1:], system.config.text_encoder.max_length
    branches, seen = len(system.text_inputs(request)), (request.window, height // down, width // across)
    codec, tiling = system.codec, asked.tiling(system.codec)
    plan = memory_plan(
        system.backbone, codec, latents=shape, tokens=tokens, branches=branches, seen=seen, tiling=tiling
    )
    return replace(plan, encoders=system.text_encoder.nbytes)


def kept(plan: MemoryPlan, system: ClipGenerator, way: Offloading) -> MemoryPlan:
    """A plan of `whole_plan`, with what is kept in host memory."""
    return plan if way == "none" else offloaded(plan, system.backbone, eight=way == "blocks8")


def lacking(plan: MemoryPlan, device: torch.device) -> str:
    """What a plan takes and what there is, where that is too little; empty where there is room."""
    needs = {device: plan.peak + plan.host} if device == HOST else {device: plan.peak, HOST: plan.host}
    for where, size in needs.items():
        free = free_bytes(where)
        if free is not None and size > free:
            place = "of memory" if where == HOST else "on the card"
            return f"this clip takes {size / GIB:.1f} GiB {place}, and {free / GIB:.1f} GiB are free"
    return ""


def mend(asked: SampleClip, system: ClipGenerator, whole: MemoryPlan, device: torch.device) -> str:
    """The least to ask for that gives a clip room; fewer pixels where no flag does."""
    ways = WAYS[WAYS.index(asked.offload) :]
    plans = {asked.tile: whole}
    if whole.decode > whole.step and not 0 < asked.tile <= TILE:
        plans[TILE] = whole_plan(replace(asked, tile=TILE), system)
    for way, (side, plan) in itertools.product(ways, plans.items()):
        if not lacking(kept(plan, system, way), device):
            return f"add {_flags(asked, way, side)}"
    flags = _flags(asked, ways[-1], [*plans][-1])
    return "ask for fewer `--frames` or a smaller `--size`" + (f", with {flags}" if flags else "")


def _flags(asked: SampleClip, way: Offloading, side: int) -> str:
    """What differs from what was asked for."""
    flags = [f"--offload {way}"] * (way != asked.offload) + [f"--tile {side}"] * (side != asked.tile)
    return f"`{' '.join(flags)}`" if flags else ""


def placed(asked: SampleClip, system: ClipGenerator, device: torch.device) -> ClipGenerator:
    """A system on its device, with what is kept in host memory.

    Published text encoders encode before that, where nothing else is, and are closed: on the device, or in
    host memory where something is kept there.
    """
    system.text_encoder.to(device if asked.offload == "none" else HOST)
    system.text_encoder.precompute(system.text_inputs(asked.request))
    if asked.offload != "none":
        Offload(system.blocks, device, eight=asked.offload == "blocks8")
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return system.to(device)


@contextmanager
def shortage_told(asked: SampleClip) -> Iterator[None]:
    """When memory runs out inside, a UserError says what mends it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in SIGNS):
            raise
        flags = _flags(asked, WAYS[-1], asked.tile if 0 < asked.tile <= TILE else TILE)
        more = f", or add {flags}" if flags else ""
        raise UserError(f"memory ran out: ask for fewer `--frames` or a smaller `--size`{more}") from None
