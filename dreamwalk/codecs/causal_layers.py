"""Layers of a causal video autoencoder, over a video in pieces.

A piece holds some neighbouring frames, `(b, c, t, h, w)`; a video is its pieces in order. A layer turns
pieces into pieces, and its convolutions carry their last frames from one to the next, so that it does not
matter how a video is cut: one piece for training, many to need little space, and one after another, with what
they carry kept in a `StreamState`, as a stream. Lists of pieces are overwritten: a layer replaces them one by
one, so that a video is never held twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from dreamwalk.codecs.codec import Stride

StreamState = dict[nn.Module, Tensor]
"""The frames that each convolution still needs, padded as it saw them, and what attention over all frames
has seen."""
NormKind = Literal["group", "position", "length"]
AttentionKind = Literal["causal", "frame"]
SLICE = 2
"""Frames of a piece where few copies of a video are to be held, if the frames are large."""
POSITIONS = 2**16
"""If they are small, a piece may have more frames, but no more positions: every piece takes time too."""


class CausalConv(nn.Module):
    """Convolution that sees no later frame; borders and what was before the first frame are replicated."""

    def __init__(self, width: int, out: int, *, stride: Stride = (1, 1, 1)) -> None:
        super().__init__()
        self.conv = nn.Conv3d(width, out, 3, stride=stride)

    def forward(self, pieces: Iterable[Tensor], past: StreamState | None) -> Iterator[Tensor]:
        """One piece for each, but none while there are too few frames for a step of the stride."""
        kept, stride = None if past is None else past.get(self), self.conv.stride[0]
        for piece in pieces:
            before = (2, 0) if kept is None else (0, 0)
            seen = nn.functional.pad(piece, (1, 1, 1, 1, *before), mode="replicate")
            seen = seen if kept is None else torch.cat([kept, seen], dim=2)
            steps = (seen.shape[2] - 3) // stride + 1
            alone = kept is None and piece.shape[2] == 1
            kept = seen[:, :, steps * stride :].clone()
            if past is not None:
                past[self] = kept
            if steps:
                yield self._frame(seen, alone=alone) if steps == 1 else convolve(self.conv, seen)

    def _frame(self, seen: Tensor, *, alone: bool) -> Tensor:
        """One frame from three, on a card in two dimensions, where convolutions are faster; from one that
        stands `alone` and was replicated, by the sum of the three weights."""
        weight, bias, (_, *stride) = self.conv.weight, self.conv.bias, self.conv.stride
        if alone:
            return nn.functional.conv2d(seen[:, :, 0], weight.sum(2), bias, stride)[:, :, None]
        if direct(seen):
            return convolve(self.conv, seen)
        flat = rearrange(seen[:, :, :3], "b c t h w -> b (t c) h w")
        flat = flat.contiguous(memory_format=torch.channels_last)
        weight = rearrange(weight, "o c t h w -> o (t c) h w")
        return nn.functional.conv2d(flat, weight, bias, stride)[:, :, None]


class Upsample(CausalConv):
    """Repeats pixels and frames, all but the very first frame, and convolves."""

    def __init__(self, width: int, factors: Stride) -> None:
        super().__init__(width, width)
        self.factors = factors

    def forward(self, pieces: Iterable[Tensor], past: StreamState | None) -> Iterator[Tensor]:
        return super().forward(self._repeated(pieces, begun=past is not None and self in past), past)

    def _repeated(self, pieces: Iterable[Tensor], *, begun: bool) -> Iterator[Tensor]:
        t, h, w = self.factors
        for piece in pieces:
            count = frames_of_a_piece(piece, self.factors)
            for part in [piece] if torch.is_grad_enabled() else piece.split(count, dim=2):
                last = rearrange(part, "b c t h w -> b t h w c")
                large = repeat(last, "b t h w c -> b (t r) (h p) (w q) c", r=t, p=h, q=w)
                yield rearrange(large if begun else large[:, t - 1 :], "b t h w c -> b c t h w")
                begun = True


class GroupNorm(nn.Module):
    """Group norm whose mean and variance are those of all pieces together.

    Also for one piece: torch's own loses four digits where channels come last in memory.
    """

    def __init__(self, width: int, *, groups: int) -> None:
        super().__init__()
        self.groups, self.eps = groups, 1e-6
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, pieces: list[Tensor]) -> Iterator[Tensor]:
        mean, variance = self._moments(pieces)
        scale = (variance + self.eps).rsqrt()
        weight, bias = (self._grouped(precise(parameter)) for parameter in (self.weight, self.bias))
        scale, shift = weight * scale[..., None], bias - weight * (mean * scale)[..., None]
        scale, shift = (x.flatten(1)[:, :, None, None, None].to(pieces[0].dtype) for x in (scale, shift))
        for piece in pieces:
            yield torch.addcmul(shift, piece, scale)

    def _moments(self, pieces: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and variance `(b, groups)`, those of the pieces merged one by one (Chan et al., 1979)."""
        count, mean, squares = 0, torch.zeros(()), torch.zeros(())
        for piece in pieces:
            values = precise(piece)
            average = self._grouped(values.mean((2, 3, 4))).mean(-1)
            centre = average.repeat_interleave(values.shape[1] // self.groups, 1)[:, :, None, None, None]
            spread = self._grouped((values - centre).square_().sum((2, 3, 4))).sum(-1)
            size = values[0].numel() // self.groups
            offset, total = average - mean.to(average), count + size
            mean = mean.to(average) + offset * (size / total)
            squares = squares.to(average) + spread + offset.square() * (count * size / total)
            count = total
        return mean, squares / count

    def _grouped(self, channels: Tensor) -> Tensor:
        return channels.unflatten(-1, (self.groups, -1))


class PositionNorm(nn.Module):
    """Root-mean-square norm over the channels of each position, so that no position sees another."""

    def __init__(self, width: int, *, eps: float) -> None:
        super().__init__()
        self.eps, self.weight = eps, nn.Parameter(torch.ones(width))

    def forward(self, pieces: list[Tensor]) -> Iterator[Tensor]:
        weight = self.weight[:, None, None, None]
        for piece in pieces:
            power = precise(piece).square().mean(1, keepdim=True)
            yield piece * (power + self.eps).rsqrt().to(piece.dtype) * weight.to(piece.dtype)


class LayerKind(NamedTuple):
    """The norms and the attention of a causal autoencoder."""

    norm: NormKind = "length"
    """`length` adds nothing to the mean square of `position` that would show."""
    attention: AttentionKind = "causal"
    groups: int = 1

    def build_norm(self, width: int) -> GroupNorm | PositionNorm:
        """With weights of one."""
        if self.norm == "group":
            return GroupNorm(width, groups=self.groups)
        return PositionNorm(width, eps=1e-6 if self.norm == "position" else 1e-24)


class CausalResidualBlock(nn.Module):
    """Two normalised convolutions beside a shortcut."""

    def __init__(self, width: int, out: int, kind: LayerKind) -> None:
        super().__init__()
        self.norm1, self.conv1 = kind.build_norm(width), CausalConv(width, out)
        self.norm2, self.conv2 = kind.build_norm(out), CausalConv(out, out)
        self.skip = None if width == out else nn.Conv3d(width, out, 1)

    def forward(self, x: list[Tensor], past: StreamState | None) -> list[Tensor]:
        hidden = []
        for i, piece in enumerate(self.conv1(activated(self.norm1(x)), past)):
            hidden.append(piece)
            x[i] = x[i] if self.skip is None else convolve(self.skip, x[i])
        for i, piece in enumerate(self.conv2(activated(self.norm2(hidden)), past)):
            x[i] = x[i] + piece
        return x


class FrameAttention(nn.Module):
    """Single-head attention of every pixel over its own frame and, if causal, all frames before it."""

    def __init__(self, width: int, kind: LayerKind) -> None:
        super().__init__()
        self.norm, self.causal = kind.build_norm(width), kind.attention == "causal"
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: list[Tensor], past: StreamState | None) -> list[Tensor]:
        """Frame after frame, so that there is no mask: that of a whole clip would have n x n entries."""
        if not x:
            return x
        h, w = x[0].shape[-2:]
        tokens = torch.cat([rearrange(piece, "b c t h w -> b (t h w) c") for piece in self.norm(x)], dim=1)
        q, k, v = (project(tokens)[:, None] for project in (self.q, self.k, self.v))
        if self.causal and past is not None:
            both = torch.stack([k, v])
            k, v = past[self] = torch.cat([past[self], both], dim=3) if self in past else both
        frames, before = [], k.shape[2] - q.shape[2]
        for start in range(0, tokens.shape[1], h * w):
            seen = slice(0 if self.causal else start, before + start + h * w)
            now = q[:, :, start : start + h * w]
            frames.append(nn.functional.scaled_dot_product_attention(now, k[:, :, seen], v[:, :, seen]))
        y = rearrange(self.out(torch.cat(frames, dim=2)[:, 0]), "b (t h w) c -> b c t h w", h=h, w=w)
        sizes = [piece.shape[2] for piece in x]
        return [piece + added for piece, added in zip(x, y.split(sizes, dim=2), strict=True)]


class CausalMiddle(nn.Module):
    """Attention between two residual blocks."""

    def __init__(self, width: int, kind: LayerKind) -> None:
        super().__init__()
        self.before = CausalResidualBlock(width, width, kind)
        self.attention = FrameAttention(width, kind)
        self.after = CausalResidualBlock(width, width, kind)

    def forward(self, x: list[Tensor], past: StreamState | None) -> list[Tensor]:
        return self.after(self.attention(self.before(x, past), past), past)


class CausalStage(nn.Module):
    """Residual blocks at one resolution, and the resampling to the next: `widths` before and after each."""

    def __init__(self, widths: Sequence[int], kind: LayerKind, resample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(CausalResidualBlock(a, b, kind) for a, b in pairwise(widths))
        self.resample = resample

    def forward(self, x: list[Tensor], past: StreamState | None) -> list[Tensor]:
        for block in self.blocks:
            x = block(x, past)
        return x if self.resample is None else list(self.resample(x, past))


def frames_of_a_piece(x: Tensor, factors: Stride) -> int:
    """How many frames of `x`, five axes of which the last are height and width, are coded at a time where few
    copies of a video are to be held; `factors`: frames, rows and columns that one of each becomes."""
    (t, down, across), (h, w) = factors, x.shape[3:]
    return max(1, max(SLICE, POSITIONS // (down * h * across * w)) // t)


def laid_out(x: Tensor) -> Tensor:
    """Channels last in memory, as all layers keep them: half as fast again on a processor."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def direct(x: Tensor) -> bool:
    """Whether `convolve` asks oneDNN itself: float32 on a processor, without gradients."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32
    return plain and not torch.is_grad_enabled() and torch.backends.mkldnn.is_available()


def convolve(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """`conv(x)`, unpadded, of a video of its own.

    For one video whose channels times frames times rows are 20,480 or fewer, however wide it is, torch leaves
    oneDNN for a loop of its own that takes 3 to 15 times as long.
    """
    if not direct(x):
        return conv(x)
    run, padding, dilation = torch.ops.mkldnn._convolution_pointwise, [0, 0, 0], [1, 1, 1]
    return run(x, conv.weight, conv.bias, padding, conv.stride, dilation, 1, "none", [], "")


def activated(pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """SiLU of pieces that nobody else holds."""
    return (nn.functional.silu(piece, inplace=not torch.is_grad_enabled()) for piece in pieces)


def precise(x: Tensor) -> Tensor:
    """In float32, or better if it is, to sum over many positions."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
