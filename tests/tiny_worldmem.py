"""Checkpoints in the layout of WorldMem with tiny random weights, and what its network computes with them.

The second is written from the description of the published model (shapes, names of tensors, algorithm), in
plain functions of torch and in its own conventions, and uses nothing of the package: frames of the window,
then recalled ones, all read anew at every step.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

WIDTH, DEPTH, HEADS, CHANNELS, PATCH = 16, 2, 2, 4, 2
GRID, PIXELS = (2, 3), 8
"""Tokens down and across, and pixels from one to the next."""
CLEAN = 14
State = dict[str, Tensor]


def checkpoints(seed: int = 0) -> dict[str, State]:
    """The three files, tensors by name."""
    draw = torch.Generator().manual_seed(seed)

    def layers(shapes: dict[str, tuple[int, ...]], std: float) -> State:
        state: State = {}
        for name, shape in shapes.items():
            state[f"{name}.weight"] = std * torch.randn(shape, generator=draw, dtype=torch.float32)
            if not name.endswith(".to_qkv"):
                state[f"{name}.bias"] = std * torch.randn(shape[0], generator=draw, dtype=torch.float32)
        return state

    diffusion = {f"model.{name}": x for name, x in layers(diffusion_shapes(WIDTH, DEPTH), 0.25).items()}
    head = WIDTH // HEADS
    diffusion["model.spatial_rotary_emb.freqs"] = torch.linspace(1, 128, head // 4) * math.pi
    diffusion["model.temporal_rotary_emb.freqs"] = 10_000 ** (-torch.arange(0, head, 2) / head)
    diffusion["alphas_cumprod"] = alphas_cumprod().float()
    diffusion["betas"] = torch.rand(1000)
    vae = layers(vae_shapes(), 0.15)
    for name in [name for name in vae if "norm" in name and name.endswith("weight")]:
        vae[name] = 1 + vae[name]
    return {
        "diffusion_only": diffusion,
        "vae_only": vae,
        "pose_prediction_model_only": layers(pose_shapes(), 0.2),
    }


def diffusion_shapes(width: int, depth: int, *, channels: int = CHANNELS) -> dict[str, tuple[int, ...]]:
    """Weights of the diffusion network by layer, without rotary frequencies."""
    shapes: dict[str, tuple[int, ...]] = {
        "x_embedder.proj": (width, channels, PATCH, PATCH),
        "t_embedder.mlp.0": (width, 256), "t_embedder.mlp.2": (width, width),
        "timestamp_embedding.mlp.0": (width, 256), "timestamp_embedding.mlp.2": (width, width),
        "external_cond": (width, 25),
        "pose_embedder.model.0": (128, 6), "pose_embedder.model.2": (width, 128),
        "final_layer.linear": (PATCH * PATCH * channels, width),
        "final_layer.adaLN_modulation.1": (2 * width, width),
    }  # fmt: skip
    for index in range(depth):
        for part in "str":
            shapes |= {
                f"blocks.{index}.{part}_attn.to_qkv": (3 * width, width),
                f"blocks.{index}.{part}_attn.to_out": (width, width),
                f"blocks.{index}.{part}_mlp.fc1": (4 * width, width),
                f"blocks.{index}.{part}_mlp.fc2": (width, 4 * width),
                f"blocks.{index}.{part}_adaLN_modulation.1": (6 * width, width),
            }
        for name in ("pose_cond_mlp", "temporal_pose_cond_mlp"):
            shapes[f"blocks.{index}.{name}"] = (width, width)
    return shapes


def vae_shapes() -> dict[str, tuple[int, ...]]:
    """Of a codec of 16x24 frames in patches of 4."""
    shapes: dict[str, tuple[int, ...]] = {"patch_embed.proj": (32, 3, 4, 4)}
    for block in ("encoder.0", "decoder.0", "decoder.1"):
        shapes |= {f"{block}.norm1": (32,), f"{block}.norm2": (32,)}
        shapes |= {f"{block}.attn.qkv": (96, 32), f"{block}.attn.proj": (32, 32)}
        shapes |= {f"{block}.mlp.fc1": (128, 32), f"{block}.mlp.fc2": (32, 128)}
    shapes |= {"enc_norm": (32,), "dec_norm": (32,), "quant_conv": (8, 32), "post_quant_conv": (32, 4)}
    return shapes | {"predictor": (48, 32)}


def pose_shapes() -> dict[str, tuple[int, ...]]:
    """Of the pose network; its names are made up."""
    widths = (CHANNELS, 6, 8, 10)
    shapes: dict[str, tuple[int, ...]] = {f"cnn.{2 * i}": (widths[i + 1], widths[i], 3, 3) for i in range(3)}
    shapes |= {"fc": (12, 10), "motion.0": (7, 30), "motion.2": (7, 7)}
    return shapes | {"out.0": (7, 19), "out.2": (5, 7)}


def write_checkpoints(folder: Path, states: dict[str, State] | None = None) -> Path:
    """As published: pickles with a `state_dict`."""
    for name, state in (states or checkpoints()).items():
        torch.save({"state_dict": state}, folder / f"{name}.ckpt")
    return folder


def alphas_cumprod() -> Tensor:
    """The sigmoid schedule from -3 to 3, its betas cut at 0.999."""
    clock = torch.linspace(0, 1, 1001, dtype=torch.float64)
    low, high = (torch.tensor(end, dtype=torch.float64).sigmoid() for end in (-3.0, 3.0))
    share = (high - (clock * 6 - 3).sigmoid()) / (high - low)
    share = share / share[0]
    betas = (1 - share[1:] / share[:-1]).clamp(0, 0.999)
    return (1 - betas).cumprod(0)


class Frames(NamedTuple):
    """Frames as the published network is given them."""

    y: Tensor
    """VP samples `(b, t, c, h, w)`."""
    levels: Tensor
    """Timesteps `(b, t)`."""
    actions: Tensor
    """`(b, t, 25)`."""
    poses: Tensor
    """x, y, z, pitch, yaw to the left `(b, t, 5)`."""
    times: Tensor
    """Indices `(b, t)`."""


def network(state: State, frames: Frames, memory: int) -> Tensor:
    """Its v-prediction of `frames`, of which the last `memory` are recalled ones."""
    state = {name.removeprefix("model."): tensor.to(frames.y.dtype) for name, tensor in state.items()}
    b, total = frames.y.shape[:2]
    t, (rows, columns) = total - memory, GRID
    x = F.conv2d(frames.y.flatten(0, 1), *layer(state, "x_embedder.proj"), stride=PATCH)
    x = x.flatten(2).mT.unflatten(0, (b, total))
    level = embedded(state, "t_embedder", frames.levels)
    acting = level + F.linear(frames.actions, *layer(state, "external_cond"))
    seen = torch.zeros(total, total, dtype=torch.bool)
    seen[:t, :t] = torch.ones(t, t, dtype=torch.bool).tril()
    seen[t:, t:] = torch.eye(memory, dtype=torch.bool)
    states, own = relative_states(state, frames, t)
    for index in range(sum(name.endswith(".s_attn.to_qkv.weight") for name in state)):
        block = f"blocks.{index}."
        x = part(state, block + "s", x, level, lambda q, k, v: spatial(q, k, v))
        x = part(state, block + "t", x, acting, lambda q, k, v: temporal(q, k, v, seen))
        x = remembered(state, block, x, level, states, own)
    shift, scale = modulation(state, "final_layer.adaLN_modulation.1", level, 2)
    out = F.linear(normed(x) * (1 + scale) + shift, *layer(state, "final_layer.linear"))
    out = out.reshape(b, total, rows, columns, PATCH, PATCH, CHANNELS).permute(0, 1, 6, 2, 4, 3, 5)
    return out.reshape(frames.y.shape)[:, :t]


def layer(state: State, name: str) -> tuple[Tensor, Tensor | None]:
    return state[f"{name}.weight"], state.get(f"{name}.bias")


def embedded(state: State, name: str, steps: Tensor) -> Tensor:
    """Sinusoids of single precision, cosines first, through two layers."""
    frequency = torch.exp(-math.log(10_000) * torch.arange(128) / 128)
    angle = steps.float()[..., None] * frequency
    waves = torch.cat([angle.cos(), angle.sin()], -1).to(state[f"{name}.mlp.0.weight"].dtype)
    return F.linear(F.silu(F.linear(waves, *layer(state, f"{name}.mlp.0"))), *layer(state, f"{name}.mlp.2"))


def modulation(state: State, name: str, level: Tensor, parts: int) -> tuple[Tensor, ...]:
    return F.linear(F.silu(level), *layer(state, name))[:, :, None].chunk(parts, -1)


def normed(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def split(x: Tensor) -> tuple[Tensor, ...]:
    """`(..., n, 3d)` as three `(..., heads, n, e)`."""
    return x.unflatten(-1, (3, HEADS, -1)).movedim(-3, 0).transpose(-2, -3).unbind(0)


def feedforward(state: State, name: str, x: Tensor) -> Tensor:
    hidden = F.gelu(F.linear(x, *layer(state, f"{name}_mlp.fc1")), approximate="tanh")
    return F.linear(hidden, *layer(state, f"{name}_mlp.fc2"))


def part(
    state: State, name: str, x: Tensor, level: Tensor, attention: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """Attention of one kind and feed-forward."""
    a, b, c, d, e, f = modulation(state, f"{name}_adaLN_modulation.1", level, 6)
    y = attention(*split(F.linear(normed(x) * (1 + b) + a, *layer(state, f"{name}_attn.to_qkv"))))
    x = x + c * F.linear(y.transpose(-2, -3).flatten(-2), *layer(state, f"{name}_attn.to_out"))
    return x + f * feedforward(state, name, normed(x) * (1 + e) + d)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return (scores if seen is None else scores.masked_fill(~seen, -torch.inf)).softmax(-1) @ v


def turned(x: Tensor, angle: Tensor) -> Tensor:
    """Pairs of neighbours turned by `angle` `(n, e/2)`."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)


def spatial(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    frequency = (torch.linspace(1, 128, q.shape[-1] // 4) * math.pi).float()  # as it lies in the file
    row, column = (torch.linspace(-1, 1, side)[:, None] * frequency for side in GRID)
    angle = torch.cat([row[:, None].expand(*GRID, -1), column[None].expand(*GRID, -1)], -1).flatten(0, 1)
    return softmax_attention(turned(q, angle.to(q)), turned(k, angle.to(q)), v)


def temporal(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Along each token; `(b, t, heads, n, e)`."""
    q, k, v = (x.permute(0, 3, 2, 1, 4) for x in (q, k, v))
    e = q.shape[-1]
    angle = torch.arange(q.shape[-2])[:, None] * 10_000 ** (-torch.arange(0, e, 2) / e)
    return softmax_attention(turned(q, angle.to(q)), turned(k, angle.to(q)), v, seen).permute(0, 3, 2, 1, 4)


def camera_to_world(pose: Tensor) -> Tensor:
    """`(..., 4, 4)` of x, y, z, pitch and yaw: first pitch, then yaw; axes left, up, ahead."""
    pitch, yaw = pose[..., 3].deg2rad(), pose[..., 4].deg2rad()
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    about_y = [yaw.cos(), zero, yaw.sin(), zero, one, zero, -yaw.sin(), zero, yaw.cos()]
    about_x = [one, zero, zero, zero, pitch.cos(), -pitch.sin(), zero, pitch.sin(), pitch.cos()]
    y, x = (torch.stack(entries, -1).unflatten(-1, (3, 3)) for entries in (about_y, about_x))
    matrix = torch.eye(4, dtype=pose.dtype).repeat(*yaw.shape, 1, 1)
    matrix[..., :3, :3], matrix[..., :3, 3] = y @ x, pose[..., :3]
    return matrix


def rays(matrix: Tensor) -> Tensor:
    """Of a whole picture, then every `PIXELS`-th row and column: `(..., n, 6)`."""
    h, w = (side * PIXELS for side in GRID)
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    local = torch.stack([-(x - w / 2) / (0.35 * w), -(y - h / 2) / (0.35 * h), torch.ones_like(x)], -1)
    local = (local / local.norm(dim=-1, keepdim=True)).to(matrix)[::PIXELS, ::PIXELS].flatten(0, 1)
    ahead = torch.einsum("...ij,nj->...ni", matrix[..., :3, :3], local)
    origin = matrix[..., None, :3, 3].expand_as(ahead)
    return torch.cat([torch.linalg.cross(origin, ahead), ahead], -1)


def relative_states(state: State, frames: Frames, t: int) -> tuple[Tensor, Tensor]:
    """Of recalled frames as seen from each of the first `t`, `(b, t, m, n, d)`, and of a frame itself."""
    worlds = camera_to_world(frames.poses)
    relative = torch.linalg.inv(worlds[:, :t, None]) @ worlds[:, None, t:]
    elapsed = frames.times[:, None, t:] - frames.times[:, :t, None]

    def both(matrix: Tensor, since: Tensor) -> Tensor:
        hidden = F.relu(F.linear(rays(matrix), *layer(state, "pose_embedder.model.0")))
        return (
            F.linear(hidden, *layer(state, "pose_embedder.model.2"))
            + embedded(state, "timestamp_embedding", since)[..., None, :]
        )

    identity = torch.eye(4, dtype=worlds.dtype)
    return both(relative, elapsed), both(identity[None, None], torch.zeros(1, 1, dtype=torch.long))


def remembered(state: State, block: str, x: Tensor, level: Tensor, states: Tensor, own: Tensor) -> Tensor:
    """The memory part. One group for each frame of the window: the frame and the recalled ones, with their
    states as seen from it; of the last group the recalled ones are read too."""
    name, t = block + "r", states.shape[1]
    a, b, c, d, e, f = modulation(state, f"{name}_adaLN_modulation.1", level, 6)
    h, weight = normed(x) * (1 + b) + a, state[f"{name}_attn.to_qkv.weight"]
    read: list[Tensor] = []
    for i in range(t):
        group = torch.cat([h[:, i : i + 1], h[:, t:]], 1)
        where = torch.cat([own.expand(len(x), -1, -1, -1), states[:, i]], 1)
        where = F.linear(where, *layer(state, block + "pose_cond_mlp"))
        q, k, _ = split(F.linear((group + where).flatten(1, 2), weight))
        v, n = split(F.linear(group.flatten(1, 2), weight))[2], x.shape[2]
        y = softmax_attention(q, k[..., n:, :], v[..., n:, :])
        y = y.transpose(-2, -3).flatten(-2).unflatten(1, (-1, n))
        read.append(y if i == t - 1 else y[:, :1])
    y = F.linear(torch.cat(read, 1), *layer(state, f"{name}_attn.to_out"))
    x = x + c * y
    return x + f * feedforward(state, name, normed(x) * (1 + e) + d)


def shown(latents: Tensor) -> Tensor:
    """Clean latents as the network sees them."""
    return alphas_cumprod()[CLEAN].sqrt().to(latents) * latents


def ddim(state: State, history: Frames, new: Frames, memory: Frames, steps: int) -> Tensor:
    """Latents of the frame `new`, which holds its noise; the others hold clean latents."""
    y, bars = new.y, alphas_cumprod().to(new.y)
    grid = torch.linspace(-1, 999, steps + 1).long().flip(0).tolist()
    for now, following in itertools.pairwise(grid):
        whole = [torch.cat(parts, 1) for parts in zip(history, new, memory, strict=True)]
        frames = Frames(*whole)._replace(
            y=torch.cat([shown(history.y), y, shown(memory.y)], 1),
            levels=torch.cat([history.levels, torch.full_like(new.levels, now), memory.levels], 1),
        )
        u = network(state, frames, memory.y.shape[1])[:, -1:]
        alpha, s = bars[now].sqrt(), (1 - bars[now]).sqrt()
        x, eps = alpha * y - s * u, alpha * u + s * y
        bar = bars[following] if following >= 0 else torch.ones_like(bars[0])
        y = bar.sqrt() * x + (1 - bar).sqrt() * eps
    return y
