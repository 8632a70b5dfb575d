"""Whether a clip has room where it is to be dreamt: told before anything is loaded, and in one sentence."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, get_args

import torch

from dreamwalk.commands.sample_clip import SampleClip, ordered, tiles
from dreamwalk.conditions.hunyuan import HunyuanTextEncoder
from dreamwalk.device.budget import GIB, HOST, MemoryPlan, free_bytes, memory_plan, offloaded
from dreamwalk.device.offload import Offload, Offloading
from dreamwalk.errors import UserError
from dreamwalk.systems.clip_generator import lead, readings
from dreamwalk.systems.clip_request import check, extent

LARGE = 2 * GIB
"""From which on a clip's plan is shown."""
TILE = 256
"""Pixels a side of the tiles that are advised."""
WAYS: tuple[Offloading, ...] = get_args(Offloading)
SIGNS = ("can't allocate memory", "out of memory")
"""In what allocators say."""


def require_room(asked: SampleClip, system: Any, device: torch.device) -> None:
    """Show on stderr what a large clip takes; UserError that names what mends it for one without room.

    `system` may be on the meta device. UserErrors as of `ordered` and `orders.check`.
    """
    whole = whole_plan(asked, system)
    plan = kept(whole, system, asked.offload)
    if plan.peak + plan.host >= LARGE:
        print(plan.show(), file=sys.stderr)
    if lack := lacking(plan, device):
        raise UserError(f"{lack}: {mend(asked, system, whole, device)}")


def _require_pictures(asked: SampleClip, system: Any) -> None:
    """UserError for a clip whose pictures alone do not fit in memory: a plan of it would take long, too."""
    height, width = asked.size or system.config.size
    size, free = 12 * (asked.frames or system.config.frames) * height * width, free_bytes(HOST)
    if free is not None and size > max(free, LARGE):
        raise UserError(
            f"the pictures of this clip take {size / GIB:.1f} GiB of memory, and {free / GIB:.1f} GiB are "
            "free: ask for fewer `--frames` or a smaller `--size`"
        )


def whole_plan(asked: SampleClip, system: Any) -> MemoryPlan:
    """The plan of a clip that has all blocks on the device; UserError for one whose pictures have no room."""
    _require_pictures(asked, system)
    order, video = ordered(asked, system)
    config, codec = system.config, system.codec
    check(system, order, video)
    frames, (height, width) = extent(system, order, video)
    count, (_, down, across) = codec.latent_frames(frames + lead(system, video)), codec.stride
    guided = (config.guidance if order.guidance is None else order.guidance) != 1
    reader, latents = system.letters, (count, codec.channels, height // down, width // across)
    seen = order.window, *(a // b for a, b in zip(order.area or (0, 0), codec.stride[1:], strict=True))
    return memory_plan(
        system.backbone,
        codec,
        latents=latents,
        words=config.letters.longest,
        opinions=1 + guided,
        seen=seen,
        tiling=tiles(asked.tile, codec),
        readers=reader.nbytes if isinstance(reader, HunyuanTextEncoder) else 0,
    )


def kept(plan: MemoryPlan, system: Any, way: Offloading) -> MemoryPlan:
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


def mend(asked: SampleClip, system: Any, whole: MemoryPlan, device: torch.device) -> str:
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
    words = [f"--offload {way}"] * (way != asked.offload) + [f"--tile {side}"] * (side != asked.tile)
    return f"`{' '.join(words)}`" if words else ""


def placed(asked: SampleClip, system: Any, device: torch.device) -> Any:
    """A system on its device, with what is kept in host memory.

    Published encoders read the prompt before that, where nothing else is, and are closed: on the device, or
    in host memory where something is kept there.
    """
    reader = system.letters
    if isinstance(reader, HunyuanTextEncoder):
        reader.to(device if asked.offload == "none" else HOST)
        reader.read_ahead(readings(system, *ordered(asked, system)))
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
        raise UserError(
            "memory ran out: ask for fewer `--frames` or a smaller `--size`"
            + (f", or add {flags}" if flags else "")
        ) from None
