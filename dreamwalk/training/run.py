"""Runs: what is trained on what, and how. A named run is a function that returns a frozen config.

dreamwalk train nextframe.doom --steps 4000 --optim.lr 3e-4
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from dreamwalk.errors import UserError
from dreamwalk.systems import artokens, autoencode, forcing, inverse, moviegen, nextframe, voyager, worldmem
from dreamwalk.systems.system import SystemConfig
from dreamwalk.validation import Count, Share


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and the course of its learning rate."""

    method: Literal["adamw", "muon"] = "adamw"
    """`muon` orthogonalises the updates of the blocks' matrices (one process only); AdamW does the rest."""
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.002
    clip: float = 1.0
    """Largest gradient norm."""
    warmup: Count = 100
    """Steps over which the learning rate rises from 0."""
    decay: float = 0.3
    """Last part of the run over which it falls to 0, linearly."""


@dataclass(frozen=True)
class Run:
    """One training run. Its chance is a function of `seed` and the step: a resume needs nothing else."""

    name: str
    system: SystemConfig
    data: str = "data/doom"
    """A folder of shards, as `dreamwalk collect` writes it."""
    codec: str | None = None
    """Where the frozen codec comes from: the name of shipped weights, a weight file, or a run folder."""
    start: str | None = None
    """Weights to start from instead of random ones: a name, a file, or a run folder."""
    frames: int = 8
    """Frames in a training clip."""
    past: Count = 0
    """Earlier frames that come with each, drawn from all before it, for what a memory recalls."""
    button: str = ""
    """A button of the data whose presses are rare and to be learnt, such as `place`."""
    press_prob: Share = 0.3
    """Probability of a clip in which it is pressed, where one is named."""
    batch: int = 8
    """Clips in a step, over all processes together."""
    resident: bool = False
    """Hold all clips, decoded, in the memory of the device: a frame of 96x128 takes 37 kB, with depth 61."""
    steps: int = 1000
    seed: Count = 0
    optim: OptimConfig = field(default_factory=OptimConfig)
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones that are exported."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the arithmetic: bfloat16 on an NVIDIA card, else float32. Weights and optimizer stay float32."""
    checkpoint_blocks: bool = False
    """Recompute the blocks' activations when going back: less memory, a third more time."""
    compile_blocks: bool = False
    """`torch.compile` each block."""
    save_every: int = 500
    preview_every: int = 500
    log_every: int = 20
    keep: int = 2
    """Checkpoints kept."""

    def check(self) -> None:
        """UserError for a number that no run can have, by its flag."""
        whole = ("frames", "batch", "steps", "save_every", "preview_every", "log_every", "keep")
        for name in whole:
            if getattr(self, name) < 1:
                flag = "--" + name.replace("_", "-")
                raise UserError(f"`{flag}` is a whole number from 1 up, got {getattr(self, name)}")
        optim = self.optim
        for flag, value, fits, wanted in (
            ("--seed", self.seed, self.seed >= 0, "from 0 up"),
            ("--ema", self.ema, 0 <= self.ema < 1, "from 0 to below 1"),
            ("--optim.lr", optim.lr, 0 < optim.lr < math.inf, "above 0"),
            ("--optim.betas", optim.betas, all(0 <= beta < 1 for beta in optim.betas), "from 0 to below 1"),
            ("--optim.weight-decay", optim.weight_decay, 0 <= optim.weight_decay < math.inf, "from 0 up"),
            ("--optim.clip", optim.clip, optim.clip > 0, "above 0"),
            ("--optim.warmup", optim.warmup, optim.warmup >= 0, "from 0 up"),
            ("--optim.decay", optim.decay, 0 <= optim.decay <= 1, "from 0 to 1"),
        ):
            if not fits:
                raise UserError(f"`{flag}` lies {wanted}, got {value}")


MUON = OptimConfig(method="muon", lr=1.5e-3)
FINE_TUNING = OptimConfig(method="muon", lr=1e-3, warmup=30, decay=0.5)


def autoencode_doom() -> Run:
    """The frame codec of the shipped dreams, on two CPU cores: about five minutes."""
    optim = OptimConfig(lr=1e-3, weight_decay=0.0)
    return Run("autoencode.doom", autoencode.doom(), frames=2, batch=16, steps=700, optim=optim, ema=0.995)


def autoencode_clips() -> Run:
    """The video codec of the shipped clips, on two CPU cores: about twenty minutes."""
    optim = OptimConfig(lr=7e-4, weight_decay=0.0, warmup=50, decay=0.5)
    run = Run("autoencode.clips", autoencode.blocks(), frames=17, batch=4, steps=1500, optim=optim)
    return replace(run, ema=0.99, save_every=100)


def autoencode_hunyuan() -> Run:
    """A video codec of HunyuanVideo's layout, on two CPU cores: about fifteen minutes."""
    optim = OptimConfig(lr=1e-3, weight_decay=0.0, warmup=20)
    run = Run("autoencode.hunyuan", autoencode.hunyuan(), frames=17, batch=4, steps=600, optim=optim)
    return replace(run, ema=0.98, save_every=100, preview_every=600)


def autoencode_causal() -> Run:
    """The same for streams: no frame sees a later one."""
    return replace(autoencode_hunyuan(), name="autoencode.causal", system=autoencode.causal())


def autoencode_tokens() -> Run:
    """Video as tokens, one of 64,000 for 4x16x16 pixels."""
    optim = OptimConfig(lr=4e-4, weight_decay=0.0, warmup=20)  # at 1e-3 most codes die
    run = replace(autoencode_hunyuan(), name="autoencode.tokens", system=autoencode.tokens())
    return replace(run, optim=optim, ema=0.0)  # as of `autoencode_delta`


def autoencode_scales() -> Run:
    """The same from coarse to fine."""
    return replace(autoencode_tokens(), name="autoencode.scales", system=autoencode.scales())


def autoencode_matched(quantizer: str) -> Run:
    """One of a family that differs by what is in the middle (`codecs.tokens.matched`): what that costs."""
    name = f"autoencode.tokens-{quantizer}"
    return replace(autoencode_tokens(), name=name, system=autoencode.tokens_of(quantizer))


def autoencode_delta() -> Run:
    """What frames of Doom add to those before, as tokens: an hour on a CPU core, in bfloat16."""
    optim = OptimConfig(lr=5e-4, weight_decay=0.0, decay=0.5)
    run = Run("autoencode.delta", autoencode.delta(), "data/rooms", frames=6, batch=8, steps=5000)
    # averaged weights were 1.4 dB behind while the spread of latents was measured on; untried since it is not
    return replace(run, optim=optim, ema=0.0, save_every=100, preview_every=500)


def autoencode_delta_matched(quantizer: str) -> Run:
    """`autoencode.delta` with another quantizer, from which it starts but for what is next to that."""
    run, name = autoencode_delta(), f"autoencode.delta-{quantizer}"
    return replace(
        run, name=name, system=autoencode.delta(quantizer), start="runs/autoencode.delta", steps=200
    )


def autoencode_frames() -> Run:
    """Tokens of `artokens.doom`, from what `autoencode.delta` expects."""
    run, start = autoencode_delta(), "runs/autoencode.delta"
    return replace(run, name="autoencode.frames", system=autoencode.delta_frames(), start=start)


def artokens_doom() -> Run:
    """A dream in tokens, on those of `autoencode.frames`."""
    run = Run("artokens.doom", artokens.doom(), "data/rooms", codec="runs/autoencode.frames", frames=14)
    return replace(run, batch=8, steps=3000, optim=MUON, ema=0.995, save_every=100, preview_every=500)


def artokens_changes() -> Run:
    """The same on tokens that tell what is not as expected: for comparison."""
    run = replace(artokens_doom(), name="artokens.changes", system=artokens.changes(), frames=10)
    return replace(run, codec="runs/autoencode.delta")


def artokens_video() -> Run:
    """Tokens of video by rows; to compare orders, `--system.order` and `--system.played`."""
    run = replace(artokens_doom(), name="artokens.video", system=artokens.video(), frames=17)
    return replace(run, codec="runs/autoencode.tokens", batch=4, steps=1000)


def artokens_scale() -> Run:
    """The same from coarse to fine."""
    run = replace(artokens_video(), name="artokens.scale", system=artokens.video("scale"))
    return replace(run, codec="runs/autoencode.scales")


def artokens_continuous() -> Run:
    """The same without a codebook."""
    run = replace(artokens_video(), name="artokens.continuous", system=artokens.continuous())
    return replace(run, codec="runs/autoencode.tokens-none")


def autoencode_image() -> Run:
    """An image codec for `autoencode.tae` to start from, which sees as many frames a step."""
    run = replace(autoencode_hunyuan(), name="autoencode.image", system=autoencode.image())
    return replace(run, frames=1, batch=16)


def autoencode_tae() -> Run:
    """A video codec of Movie Gen's layout, inflated from `autoencode.image`: one clip of two latents a step.
    `--system.outliers 1e5` adds its outlier penalty."""
    run = replace(autoencode_hunyuan(), name="autoencode.tae", system=autoencode.tae())
    return replace(run, start="runs/autoencode.image", frames=16, batch=1)


def nextframe_game() -> Run:
    """A dream of any game that was collected: about 75 minutes on two CPU cores."""
    run = Run("nextframe.game", nextframe.game(), codec="autoencode.doom", steps=1840, optim=MUON)
    return replace(run, ema=0.995, save_every=100, preview_every=200)


def nextframe_map() -> Run:
    """The map and the pose model of the shipped dream, before its network: about seven minutes."""
    optim, system = OptimConfig(lr=3e-3, warmup=30, decay=0.5), replace(nextframe.doom(), memory_only=True)
    return replace(nextframe_game(), name="nextframe.map", system=system, batch=32, steps=700, optim=optim)


def nextframe_doom() -> Run:
    """The shipped dream, which knows its level: an hour and a half; starts from `nextframe.map`."""
    run = replace(nextframe_game(), name="nextframe.doom", system=nextframe.doom(), steps=3000)
    return replace(run, start="runs/nextframe.map")


def forcing_levels() -> Run:
    """Diffusion Forcing on levels never seen twice; `--system.training` chooses what it is compared with."""
    run = Run("forcing.levels", forcing.levels(), "data/rooms", "autoencode.doom", frames=12, steps=1200)
    return replace(run, optim=MUON, ema=0.995, save_every=200, preview_every=1200)


def forcing_layout() -> Run:
    """Diffusion Forcing of levels never seen, with a memory of points, as latents: the first stage of
    `forcing.rooms`, an hour and a half on two CPU cores. Its codec is linear, and fitted before it begins."""
    run = Run("forcing.layout", forcing.layout(), "data/rooms", frames=8, past=8, steps=2150, optim=MUON)
    return replace(run, ema=0.995, save_every=100, preview_every=500)


def forcing_rooms() -> Run:
    """The shipped dream of levels never seen: the pixels of `forcing.layout`, from which it starts; half an
    hour."""
    run = replace(forcing_layout(), name="forcing.rooms", system=replace(forcing.rooms(), memory_only=True))
    return replace(run, start="runs/forcing.layout", steps=900, optim=OptimConfig(lr=1e-3), preview_every=100)


def forcing_doom() -> Run:
    """The shipped dream for any schedule; starts from `nextframe.doom`."""
    run = replace(forcing_levels(), name="forcing.doom", system=forcing.doom(), data="data/doom", frames=8)
    return replace(run, start="runs/nextframe.doom", steps=1400, optim=FINE_TUNING)


def worldmem_layout() -> Run:
    """The network of `worldmem.doom`, from that of `forcing.rooms`: an hour and a half on two CPU cores; a
    minute on a card, with `--batch 32 --steps 371 --resident`."""
    run = replace(forcing_layout(), name="worldmem.layout", system=worldmem.network(), start="forcing.rooms")
    optim = OptimConfig(method="muon", lr=1e-3, warmup=20, decay=0.5)
    return replace(run, steps=1500, optim=optim, ema=0.98, button="place")


def worldmem_doom() -> Run:
    """The shipped dream that also recalls frames: the pixels of `worldmem.layout`, from which it starts."""
    system = replace(worldmem.doom(), memory_only=True)
    return replace(forcing_rooms(), name="worldmem.doom", system=system, start="runs/worldmem.layout")


def moviegen_moment() -> Run:
    """The first stage of the shipped clips: two latents, of which the first is mostly given, so that a word
    like "left" is most of what is to be known. An hour on two CPU cores; needs `autoencode.clips`."""
    system = replace(moviegen.doom(), training_shift=10.0, image_prob=0.8)
    run = Run("moviegen.moment", system, codec="runs/autoencode.clips", frames=3, batch=32, steps=3000)
    optim = replace(MUON, decay=0.1)
    return replace(run, optim=optim, ema=0.995, save_every=100, preview_every=10_000)


def moviegen_short() -> Run:
    """The second stage, on half the frames of a clip: an hour; starts from `moviegen.moment`."""
    run = replace(moviegen_moment(), name="moviegen.short", system=moviegen.doom(), frames=17, batch=8)
    return replace(run, start="runs/moviegen.moment")


def moviegen_doom() -> Run:
    """The shipped clips from text, another hour; starts from `moviegen.short`. The words are learnt by now,
    so that more of its noise levels are those of detail."""
    system = replace(moviegen.doom(), training_shift=4.0)
    run = replace(moviegen_short(), name="moviegen.doom", system=system, frames=33, batch=6, steps=1800)
    return replace(run, start="runs/moviegen.short", optim=FINE_TUNING)


def moviegen_larger() -> Run:
    """What makes the shipped clips twice as high and wide; needs clips of 192x256 and `moviegen.doom`."""
    system = moviegen.upsampler(moviegen.doom())
    run = replace(moviegen_doom(), name="moviegen.larger", system=system, data="data/large", frames=9)
    return replace(run, codec="moviegen.doom", start="moviegen.doom")


def voyager_short() -> Run:
    """Few frames of many rooms, before whole clips along a path: 90 minutes. Needs clips with depth."""
    system = voyager.stages(voyager.rooms())["rgbd"]
    run = Run("voyager.short", system, "data/rooms-train", frames=5, past=4, batch=16, steps=1400, ema=0.99)
    return replace(run, optim=replace(MUON, lr=1.2e-3), save_every=100)


def voyager_doom() -> Run:
    """The shipped clips along a path, and the filter of their frames: 40 minutes more."""
    run = replace(voyager_short(), name="voyager.doom", start="runs/voyager.short", frames=17, batch=4)
    return replace(run, steps=600, optim=FINE_TUNING)


def voyager_context() -> Run:
    """The same with context blocks, the paper's third stage: for the ablation (Voyager, table 4)."""
    system = voyager.stages(voyager.rooms())["context"]
    return replace(voyager_doom(), name="voyager.context", system=system, start="runs/voyager.doom")


def voyager_rgb() -> Run:
    """Clips along a path without depth, the paper's first stage: for the ablation."""
    return replace(voyager_short(), name="voyager.rgb", system=voyager.stages(voyager.rooms())["rgb"])


def inverse_doom() -> Run:
    """The inverse-dynamics model that reads actions, on two CPU cores: about three minutes."""
    optim = OptimConfig(lr=1e-3)
    return Run("inverse.doom", inverse.doom(), frames=4, batch=16, steps=700, optim=optim, ema=0.99)


_NAMED = (
    autoencode_doom, autoencode_clips, autoencode_hunyuan, autoencode_causal, autoencode_image,
    autoencode_tae, autoencode_tokens, autoencode_scales, autoencode_delta, autoencode_frames, artokens_doom,
    artokens_changes, artokens_video,
    artokens_scale, artokens_continuous,
    inverse_doom, nextframe_map, nextframe_doom, nextframe_game,
    forcing_levels, forcing_layout, forcing_rooms, forcing_doom, worldmem_layout, worldmem_doom,
    moviegen_moment, moviegen_short, moviegen_doom, moviegen_larger, voyager_short, voyager_doom,
    voyager_context, voyager_rgb,
)  # fmt: skip
RUNS: dict[str, Callable[[], Run]] = {run.__name__.replace("_", "."): run for run in _NAMED}
RUNS |= {f"autoencode.tokens-{name}": partial(autoencode_matched, name) for name in autoencode.MATCHED}
RUNS |= {
    f"autoencode.delta-{name}": partial(autoencode_delta_matched, name)
    for name in autoencode.DELTA_QUANTIZERS
    if name != "fsq"  # which is `autoencode.delta`
}
