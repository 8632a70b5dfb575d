"""The published tokenizer of VAR, computed apart from the package: plain functions of tensors under its
names, from the facts of its layout (arXiv 2404.02905; github.com/FoundationVision/VAR, MIT)."""

import math

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]
SIDES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
PHI = (0, 0, 1, 1, 1, 2, 2, 3, 3, 3)
"""Which convolution each scale takes; the third and the eighth are half way between two."""
WIDTHS = (1, 1, 2, 2, 4)


def shapes(width: int, channels: int, codes: int) -> dict[str, tuple[int, ...]]:
    """All tensors of the file, by name."""
    found: dict[str, tuple[int, ...]] = {"quantize.ema_vocab_hit_SV": (10, codes)}
    found["quantize.embedding.weight"] = (codes, channels)

    def conv(name: str, before: int, after: int, size: int = 3) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (after, before, size, size), (after,)

    def norm(name: str, of: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (of,), (of,)

    def block(name: str, before: int, after: int) -> None:
        norm(f"{name}.norm1", before)
        conv(f"{name}.conv1", before, after)
        norm(f"{name}.norm2", after)
        conv(f"{name}.conv2", after, after)
        if before != after:
            conv(f"{name}.nin_shortcut", before, after, 1)

    def attention(name: str, of: int) -> None:
        norm(f"{name}.norm", of)
        conv(f"{name}.qkv", of, 3 * of, 1)
        conv(f"{name}.proj_out", of, of, 1)

    sides = [width * multiple for multiple in WIDTHS]
    for part, run, count in (("encoder", "down", 2), ("decoder", "up", 3)):
        levels = range(5) if run == "down" else range(4, -1, -1)
        now = sides[0] if run == "down" else sides[4]
        for level in levels:
            for i in range(count):
                block(f"{part}.{run}.{level}.block.{i}", now, sides[level])
                now = sides[level]
                if level == 4:
                    attention(f"{part}.{run}.4.attn.{i}", now)
            if run == "down" and level < 4:
                conv(f"encoder.down.{level}.downsample.conv", now, now)
            if run == "up" and level > 0:
                conv(f"decoder.up.{level}.upsample.conv", now, now)
        block(f"{part}.mid.block_1", sides[4], sides[4])
        attention(f"{part}.mid.attn_1", sides[4])
        block(f"{part}.mid.block_2", sides[4], sides[4])
        norm(f"{part}.norm_out", now)
    conv("encoder.conv_in", 3, width)
    conv("encoder.conv_out", sides[4], channels)
    conv("decoder.conv_in", channels, sides[4])
    conv("decoder.conv_out", width, 3)
    for name in ("quant_conv", "post_quant_conv", *(f"quantize.quant_resi.qresi_ls.{i}" for i in range(4))):
        conv(name, channels, channels)
    return found


def weights(width: int = 32, channels: int = 6, codes: int = 40) -> State:
    """Random ones with which everything matters."""
    draw, state = torch.Generator().manual_seed(0), State()
    for name, shape in shapes(width, channels, codes).items():
        std = 0.1 if len(shape) == 1 else 1.0 if "embedding" in name else math.prod(shape[1:]) ** -0.5
        state[name] = std * torch.randn(shape, generator=draw)
        state[name] += "norm" in name and name.endswith("weight")
    return state


def _conv(state: State, name: str, x: Tensor, *, stride: int = 1, padding: int = 1) -> Tensor:
    return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding)


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    groups = x.unflatten(1, (32, -1)).flatten(2)
    mean, variance = groups.mean(2, keepdim=True), groups.var(2, keepdim=True, correction=0)
    x = ((groups - mean) / (variance + 1e-6).sqrt()).view_as(x)
    return x * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]


def _swish(x: Tensor) -> Tensor:
    return x * x.sigmoid()


def _block(state: State, name: str, x: Tensor) -> Tensor:
    y = _conv(state, f"{name}.conv1", _swish(_norm(state, f"{name}.norm1", x)))
    y = _conv(state, f"{name}.conv2", _swish(_norm(state, f"{name}.norm2", y)))
    shortcut = f"{name}.nin_shortcut"
    return y + (_conv(state, shortcut, x, padding=0) if f"{shortcut}.weight" in state else x)


def _attention(state: State, name: str, x: Tensor) -> Tensor:
    qkv = _conv(state, f"{name}.qkv", _norm(state, f"{name}.norm", x), padding=0)
    q, k, v = (part.flatten(2) for part in qkv.split(x.shape[1], dim=1))
    chance = (torch.einsum("bci,bcj->bij", q, k) / math.sqrt(x.shape[1])).softmax(-1)
    y = torch.einsum("bij,bcj->bci", chance, v).view_as(x)
    return x + _conv(state, f"{name}.proj_out", y, padding=0)


def _middle(state: State, name: str, x: Tensor) -> Tensor:
    x = _attention(state, f"{name}.attn_1", _block(state, f"{name}.block_1", x))
    return _block(state, f"{name}.block_2", x)


def features(state: State, image: Tensor) -> Tensor:
    """`(b, 3, h, w)` in [-1, 1] -> what is quantized, `(b, c, h/16, w/16)`."""
    x = _conv(state, "encoder.conv_in", image)
    for level in range(5):
        for i in range(2):
            x = _block(state, f"encoder.down.{level}.block.{i}", x)
            x = _attention(state, f"encoder.down.4.attn.{i}", x) if level == 4 else x
        if level < 4:
            wide = torch.zeros(*x.shape[:2], x.shape[2] + 1, x.shape[3] + 1, dtype=x.dtype)
            wide[:, :, :-1, :-1] = x
            x = _conv(state, f"encoder.down.{level}.downsample.conv", wide, stride=2, padding=0)
    x = _swish(_norm(state, "encoder.norm_out", _middle(state, "encoder.mid", x)))
    return _conv(state, "quant_conv", _conv(state, "encoder.conv_out", x))


def image(state: State, values: Tensor) -> Tensor:
    """Sums of codes `(b, c, h/16, w/16)` -> `(b, 3, h, w)`, before it is cut to [-1, 1]."""
    x = _conv(state, "decoder.conv_in", _conv(state, "post_quant_conv", values))
    x = _middle(state, "decoder.mid", x)
    for level in range(4, -1, -1):
        for i in range(3):
            x = _block(state, f"decoder.up.{level}.block.{i}", x)
            x = _attention(state, f"decoder.up.4.attn.{i}", x) if level == 4 else x
        if level:
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            x = _conv(state, f"decoder.up.{level}.upsample.conv", x)
    return _conv(state, "decoder.conv_out", _swish(_norm(state, "decoder.norm_out", x)))


def areas(x: Tensor, side: int) -> Tensor:
    """Means of the cells that each cell of a coarser grid touches."""
    whole = x.shape[-1]
    spans = [(i * whole // side, -((-(i + 1) * whole) // side)) for i in range(side)]
    rows = [[x[:, :, a:b, c:d].mean((2, 3)) for c, d in spans] for a, b in spans]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def added(state: State, indices: Tensor, scale: int) -> Tensor:
    """What a scale adds on the finest grid, of its indices `(b, side * side)`."""
    codes = state["quantize.embedding.weight"][indices].mT.unflatten(2, (SIDES[scale], SIDES[scale]))
    if scale < 9:
        codes = functional.interpolate(codes, size=(16, 16), mode="bicubic", align_corners=False)
    return (codes + _conv(state, f"quantize.quant_resi.qresi_ls.{PHI[scale]}", codes)) / 2


def tokens(state: State, picture: Tensor) -> list[Tensor]:
    """Indices `(b, side * side)` of all scales."""
    rest, found = features(state, picture), []
    for scale, side in enumerate(SIDES):
        seen = areas(rest, side).flatten(2).mT
        found.append(torch.cdist(seen, state["quantize.embedding.weight"]).argmin(-1))
        rest = rest - added(state, found[-1], scale)
    return found


def values(state: State, indices: list[Tensor]) -> Tensor:
    """The sum of the scales that there are."""
    return sum((added(state, own, scale) for scale, own in enumerate(indices)), torch.zeros(()))


def transformer_shapes(
    width: int, depth: int, heads: int, *, channels: int, codes: int, classes: int
) -> dict[str, tuple[int, ...]]:
    """All tensors of a file of the transformer, by name."""
    linear = {
        "word_embed": (width, channels),
        "head_nm.ada_lin.1": (2 * width, width),
        "head": (codes, width),
    }
    found: dict[str, tuple[int, ...]] = {
        "class_emb.weight": (classes + 1, width),
        "lvl_embed.weight": (10, width),
        "pos_start": (1, 1, width),
        "pos_1LC": (1, 680, width),
        "lvl_1L": (1, 680),
        "attn_bias_for_masking": (1, 1, 680, 680),
    }
    for i in range(depth):
        block = f"blocks.{i}"
        found[f"{block}.attn.mat_qkv.weight"] = (3 * width, width)
        found[f"{block}.attn.scale_mul_1H11"] = (1, heads, 1, 1)
        found |= {f"{block}.attn.{name}": (width,) for name in ("q_bias", "zero_k_bias", "v_bias")}
        linear[f"{block}.attn.proj"] = (width, width)
        linear[f"{block}.ffn.fc1"] = (4 * width, width)
        linear[f"{block}.ffn.fc2"] = (width, 4 * width)
        linear[f"{block}.ada_lin.1"] = (6 * width, width)
    found |= {f"{name}.weight": shape for name, shape in linear.items()}
    return found | {f"{name}.bias": shape[:1] for name, shape in linear.items()}


def transformer_weights(width: int = 24, depth: int = 2, heads: int = 3) -> State:
    """Random ones for the codes of `weights`, for pictures of five classes."""
    draw, state = torch.Generator().manual_seed(1), State()
    for name, shape in transformer_shapes(width, depth, heads, channels=6, codes=40, classes=5).items():
        std = 0.05 if len(shape) == 1 else shape[-1] ** -0.5 if len(shape) == 2 else 1.0
        state[name] = std * torch.randn(shape, generator=draw)
        if name.endswith("zero_k_bias"):
            state[name].zero_()
        if name.endswith("1H11"):
            state[name] = torch.tensor([0.5, 1.5, 5.0]).view(shape)  # the last is more than may be
    return state


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].mT + state[f"{name}.bias"]


def _layer_norm(x: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def _gelu(x: Tensor) -> Tensor:
    return x / 2 * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())


def _cosine_attention(state: State, name: str, x: Tensor, scale: Tensor) -> Tensor:
    sharp = state[f"{name}.scale_mul_1H11"].flatten()
    biases = torch.cat([state[f"{name}.{part}"] for part in ("q_bias", "zero_k_bias", "v_bias")])
    qkv = (x @ state[f"{name}.mat_qkv.weight"].mT + biases).unflatten(2, (3, len(sharp), -1))
    q, k, v = qkv.unbind(2)
    q, k = (part / part.norm(dim=-1, keepdim=True) for part in (q, k))
    score = torch.einsum("bihe,bjhe->bhij", q, k) * sharp.exp().clamp(max=100)[:, None, None]
    chance = score.masked_fill(scale[:, None] < scale, -torch.inf).softmax(-1)
    return _linear(state, f"{name}.proj", torch.einsum("bhij,bjhe->bihe", chance, v).flatten(2))


def logits(state: State, told: Tensor, labels: Tensor) -> Tensor:
    """Of the first scales, as many as `told` `(b, n, c)` is for, without the first one's own token: all at
    once."""
    label, count = state["class_emb.weight"][labels][:, None], told.shape[1] + 1
    scale = torch.tensor([k for k, side in enumerate(SIDES) for _ in range(side**2)])[:count]
    x = torch.cat([label + state["pos_start"], _linear(state, "word_embed", told)], 1)
    x = x + state["pos_1LC"][:, :count] + state["lvl_embed.weight"][scale]
    condition = label * label.sigmoid()
    for i in range(sum(name.endswith("mat_qkv.weight") for name in state)):
        parts = _linear(state, f"blocks.{i}.ada_lin.1", condition).chunk(6, -1)
        gate1, gate2, scale1, scale2, shift1, shift2 = parts
        y = _layer_norm(x) * (1 + scale1) + shift1
        x = x + gate1 * _cosine_attention(state, f"blocks.{i}.attn", y, scale)
        y = _layer_norm(x) * (1 + scale2) + shift2
        x = x + gate2 * _linear(state, f"blocks.{i}.ffn.fc2", _gelu(_linear(state, f"blocks.{i}.ffn.fc1", y)))
    larger, shift = _linear(state, "head_nm.ada_lin.1", condition).chunk(2, -1)
    return _linear(state, "head", _layer_norm(x) * (1 + larger) + shift)


def told(state: State, indices: list[Tensor]) -> Tensor:
    """What each scale but the first is shown, of the indices of those before it."""
    channels = state["quantize.embedding.weight"].shape[1]
    shown = [areas(values(state, indices[:k]), SIDES[k]) for k in range(1, len(indices) + 1)]
    empty = torch.zeros(len(indices[0]) if indices else 1, 0, channels, dtype=torch.float64)
    return torch.cat([empty, *(part.flatten(2).mT for part in shown)], 1)


def greedy(tokenizer: State, transformer: State, label: int, cfg: float) -> list[Tensor]:
    """The most likely codes `(1, side * side)` of each scale, with guidance that grows from 0 to `cfg`."""
    found, labels = list[Tensor](), torch.tensor([label, 5])
    for k, side in enumerate(SIDES):
        both = logits(transformer, told(tokenizer, found).expand(2, -1, -1), labels)[:, -(side**2) :]
        t = cfg * k / 9
        found.append(((1 + t) * both[:1] - t * both[1:]).argmax(-1))
    return found
