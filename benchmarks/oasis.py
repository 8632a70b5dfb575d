"""Oasis on our cache against the loop that its authors published, with the same weights, noise and actions.

    python benchmarks/oasis.py --public DIR [--full] [--json out.json]

DIR is a clone of github.com/etched-ai/open-oasis; its network then runs in its loop. Without one, our network
runs in that loop, which is told. The loop passes the whole window through the network at every step; we pass
every frame once as history and then only the new one. Random weights: speed does not depend on them. Frames
stay within the window, where both compute the same, and the largest difference is printed; when it is larger
than rounding explains, the exit status is 1. No codec: both decode alike.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor, nn

from dreamwalk.backbones.frame_backbone import FrameInputs
from dreamwalk.backbones.stdit import STDiT, STDiTConfig, oasis_500m
from dreamwalk.distributed import pick_device
from dreamwalk.layers import vp
from dreamwalk.published.names import renamed
from dreamwalk.published.oasis import ACTIONS, OASIS_NAMES, public_shape
from dreamwalk.rollout.realtime import EagerPass, Session, commit_frame, denoise_frame
from dreamwalk.schedules.ddim import ddim_sigmas, ddim_timesteps

SMALL = STDiTConfig(channels=16, grid=(10, 16), width=256, depth=4, heads=4)
Network = Callable[[Tensor, Tensor, Tensor], Tensor]
"""VP samples, timesteps and actions to VP velocities, all frames at once."""


@dataclass(frozen=True)
class Options:
    public: Path | None = None
    """A clone of etched-ai/open-oasis."""
    full: bool = False
    """The 500M with its window of 32, not a small one with 8. For a card: on two cores an hour and more."""
    window: int | None = None
    """Another window, counted with the new frame."""
    steps: int = 10
    prompt: int = 1
    """Frames that are given; encoding them as history is not timed."""
    frames: int | None = None
    """New frames after them; by default as many as the window holds."""
    compiled: bool = False
    """A row more: our pass through `torch.compile`."""
    json: Path | None = None
    """Also write the rows there."""


@dataclass(frozen=True)
class Walk:
    """What both are given, and what is expected of them: latents and milliseconds of every new frame."""

    prompt: Tensor
    actions: Tensor
    noise: Tensor
    steps: int
    window: int


def main(options: Options) -> None:
    device, window = pick_device(), options.window or (32 if options.full else 8)
    frames = options.frames or window - options.prompt
    if min(options.prompt, frames) < 1 or options.prompt + frames > window:
        raise SystemExit(f"{options.prompt} + {frames} frames do not fit: at least one each, {window} in all")
    torch.manual_seed(0)
    config = oasis_500m() if options.full else SMALL
    backbone, actions = STDiT(config), nn.Linear(len(ACTIONS), config.width)
    spread([backbone, actions])
    theirs: Network = ours_at_once(backbone, actions)
    if options.public:
        theirs = public_network(options.public, backbone, actions, device)
    backbone, actions = backbone.to(device).eval(), actions.to(device)
    shape = config.channels, *config.grid
    prompt, noise = torch.randn(1, options.prompt, *shape), torch.randn(frames, 1, 1, *shape)
    pushed = torch.rand(1, options.prompt + frames, len(ACTIONS)) * 2 - 1
    walk = Walk(prompt.to(device), pushed.to(device), noise.to(device), options.steps, window)
    network = "their network" if options.public else "our network, no clone given"
    runs = {f"their loop ({network})": lambda: their_loop(theirs, walk)}
    step = EagerPass(actions, backbone)
    runs["our cache"] = lambda: on_a_cache(step, backbone, walk)
    if options.compiled:
        fast = EagerPass(actions, backbone).compile()
        runs["our cache, compiled"] = lambda: on_a_cache(fast, backbone, walk)
    name = (
        torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    )
    parameters = sum(p.numel() for p in backbone.parameters()) / 1e6
    print(f"{name}, torch {torch.__version__}; {parameters:.0f}M, window {window}, {options.steps} steps")
    rows = compare(runs, device)
    if options.json:
        about = {"hardware": name, "config": str(config), "steps": options.steps, "frames": frames}
        options.json.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
    if max(row["difference"] for row in rows) > (0.1 if device.type == "cuda" else 1e-3):
        raise SystemExit("the outputs differ by more than rounding")


def compare(
    runs: dict[str, Callable[[], tuple[Tensor, list[float]]]], device: torch.device
) -> list[dict[str, float]]:
    """One row a run, after one to warm up; the first is what the others are held against."""
    rows, reference = [], None
    for name, run in runs.items():
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=device.type == "cuda"):
            run()
            latents, ms = run()
        reference = latents if reference is None else reference
        row = {"ms a frame": sum(ms) / len(ms), "ms the last frame": ms[-1]}
        row["difference"] = (latents - reference).abs().max().item()
        rows.append({"run": name, **row, "ratio": rows[0]["ms a frame"] / row["ms a frame"] if rows else 1.0})
        rows[-1]["ratio at the last frame"] = rows[0]["ms the last frame"] / row["ms the last frame"]
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in rows[-1].items()))
    return rows


def spread(modules: list[nn.Module]) -> None:
    """Random weights that keep the size of what passes, so that nothing is zero and nothing explodes."""
    for parameter in itertools.chain(*(module.parameters() for module in modules)):
        nn.init.normal_(parameter, std=0.5 * parameter.shape[-1] ** -0.5)


def public_network(folder: Path, backbone: STDiT, actions: nn.Module, device: torch.device) -> Network:
    """Their module with our weights."""
    sys.path.append(str(Path(__file__).parent.parent / "tests" / "published"))
    from make_oasis_tiny import public_imports

    public_imports(folder)
    from dit import DiT

    config = backbone.config
    dit = DiT(
        input_h=config.grid[0],
        input_w=config.grid[1],
        patch_size=config.patch,
        in_channels=config.channels,
        hidden_size=config.width,
        depth=config.depth,
        num_heads=config.heads,
    )
    named = nn.ModuleDict({"backbone": backbone, "actions": actions}).state_dict()
    weights = {
        renamed(name, OASIS_NAMES): tensor.reshape(
            public_shape(name, tuple(tensor.shape), patch=config.patch)
        )
        for name, tensor in named.items()
    }
    missing, unexpected = dit.load_state_dict(weights, strict=False)
    assert not unexpected and all("rotary" in name for name in missing)
    return dit.to(device).eval()


def ours_at_once(backbone: STDiT, actions: nn.Module) -> Network:
    """Our module, called as theirs is."""

    def network(y: Tensor, timesteps: Tensor, given: Tensor) -> Tensor:
        visible = torch.ones(y.shape[1], y.shape[1], dtype=torch.bool, device=y.device).tril()
        rope, mask = backbone.rope(torch.arange(y.shape[1], device=y.device)), backbone.mask(visible)
        return backbone.denoise(y, timesteps, FrameInputs(actions(given)), rope, mask, None)[0]

    return network


def their_loop(network: Network, walk: Walk) -> tuple[Tensor, list[float]]:
    """DDIM as published: at every step the whole window, clean frames of the past under label 14."""
    latents, share, milliseconds = walk.prompt, vp.abar().float().to(walk.prompt.device), []
    levels = [*ddim_timesteps(walk.steps).tolist(), None]
    for t, y in enumerate(walk.noise, walk.prompt.shape[1]):
        began, first = now(), max(0, t + 1 - walk.window)
        for k, following in itertools.pairwise(levels):
            seen = torch.cat([latents[:, first:], y], 1)
            timesteps = torch.full(seen.shape[:2], 14, device=y.device)
            timesteps[:, -1] = k
            u = network(seen, timesteps, walk.actions[:, first : t + 1])[:, -1:].float()
            alpha, s = share[k].sqrt(), (1 - share[k]).sqrt()
            clean, noise = alpha * y - s * u, s * y + alpha * u
            if following is None:
                y = clean
            else:
                y = share[following].sqrt() * clean + (1 - share[following]).sqrt() * noise
        latents = torch.cat([latents, y], 1)
        milliseconds.append(now() - began)
    return latents, milliseconds


@dataclass
class Given(Session):
    """A session whose noise is that of their loop."""

    walk: Walk | None = None

    def noise(self, frame: int, use: int) -> Tensor:
        assert self.walk is not None
        return self.walk.noise[self.cache.frames - self.walk.prompt.shape[1]][:, 0]


def on_a_cache(step: EagerPass, backbone: STDiT, walk: Walk) -> tuple[Tensor, list[float]]:
    """The same by Euler's method on the flow, every finished frame passing once more into the cache."""
    _, known, *shape = walk.prompt.shape
    session = Given(backbone.cache(walk.window - 1), 0, walk.steps, 0.0, tuple(shape), walk=walk)
    for t in range(known):
        commit_frame(step, session, walk.prompt[:, t : t + 1], walk.actions[:, t : t + 1])
    latents, grid, milliseconds = walk.prompt, tuple(ddim_sigmas(walk.steps).flip(0).tolist()), []
    for t in range(known, known + len(walk.noise)):
        began = now()
        x = denoise_frame(step, session, walk.actions[:, t : t + 1], sigmas=grid)
        latents = torch.cat([latents, x], 1)
        milliseconds.append(now() - began)
    return latents, milliseconds


def now() -> float:
    """Milliseconds, when the card has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1000 * time.perf_counter()


if __name__ == "__main__":
    main(tyro.cli(Options))
