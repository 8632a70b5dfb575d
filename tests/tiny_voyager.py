"""HunyuanWorld-Voyager at a tiny size: its files, and its network computed apart from ours, from the facts
alone, in plain functions over the published names."""

import math
from pathlib import Path
from typing import Any

import diffusers
import torch
from tiny_hunyuan import SIZES, as_tencent
from torch import Tensor
from torch.nn import functional as F

CHANNELS, HEADS, AXES = 4, 2, SIZES["rope_axes_dim"]
INPUTS = 3 * CHANNELS + 2
State = dict[str, Tensor]


def base() -> diffusers.HunyuanVideoTransformer3DModel:
    """Of HunyuanVideo-I2V with latent concatenation, with as many input channels as Voyager has."""
    torch.manual_seed(0)
    kind = {"in_channels": INPUTS, "guidance_embeds": False, "image_condition_type": "latent_concat"}
    model = diffusers.HunyuanVideoTransformer3DModel(**SIZES, **kind).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def state(*, context: bool) -> State:
    """Its tensors under their authors' names."""
    made = as_tencent(base())
    if context:
        copies = {"img_in": "condition_in", "double_blocks.0": "context_block1"}
        copies |= {"single_blocks.0": "context_block2"}
        width, draw = made["img_in.proj.weight"].shape[0], torch.Generator().manual_seed(3)
        shapes = {
            name.replace(source, own, 1): tensor.shape
            for source, own in copies.items()
            for name, tensor in made.items()
            if name.startswith(f"{source}.")
        }
        for gate in ("zero_linear1", "zero_linear2"):
            shapes |= {f"{gate}.weight": (width, width), f"{gate}.bias": (width,)}
        made |= {name: 0.2 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    return made


def vae() -> diffusers.AutoencoderKLHunyuanVideo:
    torch.manual_seed(1)
    return diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=CHANNELS, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    ).eval()


def write_voyager(folder: Path) -> Path:
    """As they are downloaded, but for the text encoders: three pickles."""
    transformers, autoencoder = folder / "Voyager" / "transformers", folder / "hunyuan-video-i2v-720p" / "vae"
    transformers.mkdir(parents=True)
    autoencoder.mkdir(parents=True)
    for context, ending in ((False, ""), (True, "_context")):
        torch.save({"module": state(context=context)}, transformers / f"mp_rank_00_model_states{ending}.pt")
    model = vae()
    model.save_pretrained(autoencoder)
    (autoencoder / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(model.state_dict(), autoencoder / "pytorch_model.pt")
    config = (autoencoder / "config.json").read_text()
    (autoencoder / "config.json").write_text(
        config.replace("AutoencoderKLHunyuanVideo", "AutoencoderKLCausal3D")
    )
    return folder


def linear(s: State, name: str, x: Tensor) -> Tensor:
    return x @ s[f"{name}.weight"].flatten(1).T + s.get(f"{name}.bias", torch.zeros(()).to(x))


def stacked(s: State, names: tuple[str, str], x: Tensor) -> Tensor:
    return linear(s, names[1], F.silu(linear(s, names[0], x)))


def sinusoids(time: Tensor) -> Tensor:
    angle = time[:, None] * torch.exp(-math.log(10_000) * torch.arange(128).to(time) / 128)
    return torch.cat([angle.cos(), angle.sin()], -1)


def plain_norm(x: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def patches(s: State, name: str, x: Tensor) -> Tensor:
    """`(b, c, t, h, w)` to tokens."""
    made = F.conv3d(x, s[f"{name}.proj.weight"], s[f"{name}.proj.bias"], stride=(1, 2, 2))
    return made.flatten(2).transpose(1, 2)


def positions(t: int, h: int, w: int) -> Tensor:
    """Angles of tokens, `(t h w, half a head)`."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in (t, h, w)), indexing="ij"), -1).flatten(0, 2)
    parts = []
    for axis, width in enumerate(AXES):
        frequency = 256.0 ** -(torch.arange(0, width, 2) / width).double()
        parts.append(grid[:, axis, None] * frequency)
    return torch.cat(parts, -1)


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """`(b, n, heads, e)`, of which the first tokens have angles."""
    n, pairs = len(angles), torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]
    pairs = torch.cat([pairs[:, :n] * turn, pairs[:, n:]], 1)
    return torch.view_as_real(pairs).flatten(-2).to(x)


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("bnhe,bmhe->bhnm", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("bhnm,bmhe->bnhe", scores.softmax(-1), v).flatten(2)


def split_heads(qkv: Tensor) -> list[Tensor]:
    return list(qkv.unflatten(-1, (3, HEADS, -1)).unbind(2))


def double(s: State, block: str, x: Tensor, y: Tensor, vec: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    streams, qkv = [], []
    for of, tokens in (("img", x), ("txt", y)):
        mod = linear(s, f"{block}.{of}_mod.linear", F.silu(vec))[:, None].chunk(6, -1)
        q, k, v = split_heads(linear(s, f"{block}.{of}_attn_qkv", plain_norm(tokens) * (1 + mod[1]) + mod[0]))
        q, k = (rms(a, s[f"{block}.{of}_attn_{b}_norm.weight"]) for a, b in ((q, "q"), (k, "k")))
        streams.append((of, tokens, mod))
        qkv.append((q, k, v))
    qkv[0] = turned(qkv[0][0], angles), turned(qkv[0][1], angles), qkv[0][2]
    attended = attention(*(torch.cat(part, 1) for part in zip(*qkv, strict=True)))
    results = []
    for (of, tokens, mod), seen in zip(streams, attended.split([x.shape[1], y.shape[1]], 1), strict=True):
        tokens = tokens + mod[2] * linear(s, f"{block}.{of}_attn_proj", seen)
        hidden = linear(s, f"{block}.{of}_mlp.fc1", plain_norm(tokens) * (1 + mod[4]) + mod[3])
        mlp = linear(s, f"{block}.{of}_mlp.fc2", F.gelu(hidden, approximate="tanh"))
        results.append(tokens + mod[5] * mlp)
    return results[0], results[1]


def single(s: State, block: str, x: Tensor, vec: Tensor, angles: Tensor) -> Tensor:
    shift, scale, gate = linear(s, f"{block}.modulation.linear", F.silu(vec))[:, None].chunk(3, -1)
    both = linear(s, f"{block}.linear1", plain_norm(x) * (1 + scale) + shift)
    q, k, v = split_heads(both[..., : 3 * x.shape[-1]])
    q, k = (rms(a, s[f"{block}.{b}_norm.weight"]) for a, b in ((q, "q"), (k, "k")))
    hidden = F.gelu(both[..., 3 * x.shape[-1] :], approximate="tanh")
    seen = attention(turned(q, angles), turned(k, angles), v)
    return x + gate * linear(s, f"{block}.linear2", torch.cat([seen, hidden], -1))


def refined(s: State, words: Tensor, time: Tensor) -> Tensor:
    c = stacked(s, ("txt_in.t_embedder.mlp.0", "txt_in.t_embedder.mlp.2"), sinusoids(time))
    c = c + stacked(s, ("txt_in.c_embedder.linear_1", "txt_in.c_embedder.linear_2"), words.mean(1))
    x = linear(s, "txt_in.input_embedder", words)
    for i in range(2):
        block = f"txt_in.individual_token_refiner.blocks.{i}"
        gates = linear(s, f"{block}.adaLN_modulation.1", F.silu(c))[:, None].chunk(2, -1)
        normed = [s[f"{block}.{norm}.{kind}"] for norm in ("norm1", "norm2") for kind in ("weight", "bias")]
        q, k, v = split_heads(linear(s, f"{block}.self_attn_qkv", plain_norm(x) * normed[0] + normed[1]))
        x = x + gates[0] * linear(s, f"{block}.self_attn_proj", attention(q, k, v))
        y = plain_norm(x) * normed[2] + normed[3]
        x = x + gates[1] * stacked(s, (f"{block}.mlp.fc1", f"{block}.mlp.fc2"), y)
    return x


def velocity(
    s: State, x: Tensor, time: Tensor, words: Tensor, pooled: Tensor, *, at_end: bool = True
) -> Tensor:
    """What the network gives for `(b, 14, t, h, w)` at timesteps `(b,)`, words `(b, m, 12)` without padding.

    `at_end`: the context of the depth rows goes to the last tokens of the clip, as released, or to their own.
    """
    b, _, t, h, w = x.shape
    vec = stacked(s, ("time_in.mlp.0", "time_in.mlp.2"), sinusoids(time))
    vec = vec + stacked(s, ("vector_in.in_layer", "vector_in.out_layer"), pooled)
    img, txt, angles = patches(s, "img_in", x), refined(s, words, time), positions(t, h // 2, w // 2)
    n, more1, more2 = img.shape[1], 0.0, 0.0
    if "condition_in.proj.weight" in s:
        rows = (h - 2) // 2
        below = positions(t, rows // 2, w // 2)
        c, y = double(s, "context_block1", patches(s, "condition_in", x[..., -rows:, :]), txt, vec, below)
        z = single(s, "context_block2", torch.cat([c, y], 1), vec, below)
        c, z = linear(s, "zero_linear1", c), linear(s, "zero_linear2", z)
        index = torch.arange(n)[-c.shape[1] :]
        if not at_end:
            index = torch.arange(n).view(t, h // 2, w // 2)[:, -(rows // 2) :].flatten()
        more1, more2 = torch.zeros_like(img), torch.zeros_like(torch.cat([img, txt], 1))
        more1[:, index] = c
        more2[:, torch.cat([index, torch.arange(n, n + txt.shape[1])])] = z
    for i in range(2):
        img, txt = double(s, f"double_blocks.{i}", img, txt, vec, angles)
        img = img + more1
    both = torch.cat([img, txt], 1)
    for i in range(2):
        both = single(s, f"single_blocks.{i}", both, vec, angles) + more2
    shift, scale = linear(s, "final_layer.adaLN_modulation.1", F.silu(vec))[:, None].chunk(2, -1)
    out = linear(s, "final_layer.linear", plain_norm(both[:, :n]) * (1 + scale) + shift)
    out = out.view(b, t, h // 2, w // 2, CHANNELS, 1, 2, 2)
    return torch.einsum("nthwcopq->nctohpwq", out).reshape(b, CHANNELS, t, h, w)


def full(*, context: bool) -> Any:
    """Names and shapes at the published size, on the meta device."""
    with torch.device("meta"):
        kind: Any = {"in_channels": 50, "guidance_embeds": False, "image_condition_type": "latent_concat"}
        made = as_tencent(diffusers.HunyuanVideoTransformer3DModel(**kind))
        if context:
            copies = {"img_in.": "condition_in.", "double_blocks.0.": "context_block1."}
            copies |= {"single_blocks.0.": "context_block2."}
            for source, own in copies.items():
                made |= {
                    own + name.removeprefix(source): tensor
                    for name, tensor in list(made.items())
                    if name.startswith(source)
                }
            for gate in ("zero_linear1", "zero_linear2"):
                made |= {f"{gate}.weight": torch.empty(3072, 3072), f"{gate}.bias": torch.empty(3072)}
    return made
