"""Delta codec: few tokens tell what a frame adds to the one before, given the action; the decoder sees both.

Delta-IRIS (arXiv 2406.19320, section 3.1) codes (x_t-1, a_t, x_t) and decodes (x_t-1, a_t, tokens): most of a
frame is in the frame before and is never quantized. Here the decoder moves the pixels of the frame before
along a flow and paints over them what is new, as codecs of video do (DVC, arXiv 1812.00101):

    z_t = Q(E(x'_t-1, x_t, a_t))
    flow, gate, paint = D(x'_t-1, a_t, z_t)
    x'_t = warp(x'_t-1, flow) + gate paint

x' are decoded frames, in training as well, so that the tokens of a frame also mend the errors of those before
it and nothing drifts while there are true frames to code. The first frame is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, interpolate, pixel_shuffle, smooth_l1_loss

from dreamwalk.clip import Clip
from dreamwalk.codecs.codec import Normals, Rebuilt, Stride, require_whole_latents
from dreamwalk.codecs.motion import true_motion
from dreamwalk.codecs.patch import FilterBlock
from dreamwalk.codecs.quantizers import FSQConfig, Quantized
from dreamwalk.codecs.residual_quantizers import ResidualConfig, StageConfig
from dreamwalk.errors import UserError
from dreamwalk.layers.modulation import zero_init
from dreamwalk.validation import Count

PATCH = 4
"""Pixels of a side at the finest level; the flow is as coarse as that."""
REACH = 8.0
"""Pixels of flow for an output of one."""


@dataclass(frozen=True)
class DeltaCodecConfig:
    """Sizes of a delta codec; the quantizer has the tokens."""

    actions: Count = 0
    """Length of the action vector; 0 for video without actions."""
    quantizer: StageConfig | ResidualConfig = field(default_factory=FSQConfig)
    widths: tuple[int, ...] = (48, 96, 128, 128)
    """Channels at 1/4, 1/8, ... of the resolution; a token is a place at the last."""
    motion: float = 0.2
    """Weight of the error of the flow where the true one is known, in data with depth and poses. Otherwise
    the flow learns from pixels alone, which large motion misleads; 0 is for data without."""

    def __post_init__(self) -> None:
        if len(self.widths) < 2:
            raise UserError(f"a delta codec has two levels or more, not the widths {self.widths}")

    @property
    def channels(self) -> int:
        """Latent channels."""
        return self.quantizer.channels

    @property
    def stride(self) -> Stride:
        """Frames, rows and columns of pixels per token."""
        side = PATCH * 2 ** (len(self.widths) - 1)
        return 1, side, side

    @property
    def vocabulary(self) -> int:
        """Codes that a token can be."""
        return self.quantizer.vocabulary

    def build(self) -> DeltaCodec:
        """The codec, with random weights: each frame is the one before."""
        return DeltaCodec(self)


class Pyramid(nn.Module):
    """Images `(n, c, h, w)` to features at 1/4, 1/8, ..., with an action told at every level."""

    def __init__(self, channels: int, config: DeltaCodecConfig) -> None:
        super().__init__()
        widths = config.widths
        self.unshuffle = nn.PixelUnshuffle(PATCH)
        self.enter = nn.Conv2d(channels * PATCH**2, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList(FilterBlock(width) for width in widths)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The finest first."""
        levels = [self.blocks[0](self.enter(self.unshuffle(images)))]
        for down, block in zip(self.down, list(self.blocks)[1:], strict=True):
            levels.append(block(down(levels[-1])))
        return levels


class Drawn(NamedTuple):
    """A frame as it is decoded."""

    frame: Tensor
    """`(b, 3, h, w)`."""
    flow: Tensor
    """To where its pixels were, x and y in pixels, at a quarter of the resolution, `(b, 2, h / 4, w / 4)`."""


class Coded(NamedTuple):
    """Frames in a closed loop: each coded from the decoded one before."""

    video: Tensor
    """Decoded, the first as given, `(b, t, 3, h, w)`."""
    tokens: Tensor
    """Of the frames after the first, `(b, t - 1, h', w')`, and `(.., stages)` of a residual quantizer."""
    seen: Tensor
    """Features of the frame before each, `(b, t - 1, h' w', f)`."""
    flow: Tensor
    """As of `Drawn`, `(b, t - 1, 2, h / 4, w / 4)`."""
    losses: dict[str, Tensor]
    """Of the quantizer, as of `Bottleneck`."""


class DeltaCodec(nn.Module):
    """`encode` a frame given the one before and the action, `decode` its tokens given the same."""

    image_channels = 3
    fitted = True

    def __init__(self, config: DeltaCodecConfig) -> None:
        super().__init__()
        self.config, self.stride, self.vocabulary = config, config.stride, config.vocabulary
        widths = config.widths
        self.quantizer = config.quantizer.build()
        self.before, self.both = Pyramid(3, config), Pyramid(6, config)
        self.to_code = nn.Conv2d(widths[-1], config.channels, 1)
        self.from_code = nn.Conv2d(config.channels, widths[-1], 1)
        self.action = nn.ModuleList(nn.Linear(config.actions, width) for width in widths)
        self.told = nn.Linear(config.actions, widths[-1])
        self.blocks = nn.ModuleList(FilterBlock(width) for width in widths)
        self.up = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in pairwise(widths))
        self.out = zero_init(nn.Conv2d(widths[0], 3 + 3 * PATCH**2, 3, padding=1))

    @property
    def seen_features(self) -> int:
        """Numbers that `look` tells of a place."""
        *_, fine, coarse = self.config.widths
        return 4 * fine + coarse

    def check_size(self, video: Tensor) -> None:
        """UserError with the nearest size for frames that cannot be coded."""
        require_whole_latents(video, self.stride)

    def encode(self, before: Tensor, frame: Tensor, action: Tensor) -> Quantized:
        """Tokens of frames `(b, 3, h, w)` in [-1, 1] after others, with the actions `(b, a)` that lead into
        them; UserErrors of `check_size`."""
        self.check_size(frame)
        features = self.both(torch.cat([before, frame], 1))[-1] + self.told(action)[:, :, None, None]
        return self.quantizer(rearrange(self.to_code(features), "b c h w -> b h w c"))

    def decode(self, before: Tensor, tokens: Tensor, action: Tensor) -> Tensor:
        """Frames `(b, 3, h, w)` of tokens `(b, h', w')`; UserError for what is no token of this codec."""
        return self.draw(before, self.before(before), self.quantizer.values(tokens), action).frame

    def look(self, before: Tensor) -> tuple[list[Tensor], Tensor]:
        """What the decoder sees of frames `(b, 3, h, w)`, and of it the features `(b, h' w', f)` that a model
        of tokens is told of each place: those of its last two levels."""
        levels = self.before(before)
        fine = rearrange(levels[-2], "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)
        return levels, torch.cat([fine, rearrange(levels[-1], "b c h w -> b (h w) c")], -1)

    def draw(self, before: Tensor, levels: Sequence[Tensor], values: Tensor, action: Tensor) -> Drawn:
        """`decode` with what `look` saw, and the values of the tokens `(b, h', w', c)`."""
        code = self.from_code(rearrange(values, "b h w c -> b c h w").to(before.dtype))
        told = [linear(action)[:, :, None, None] for linear in self.action]
        x = self.blocks[-1](levels[-1] + code + told[-1])
        for level in range(len(levels) - 2, -1, -1):
            x = self.up[level](interpolate(x, scale_factor=2.0, mode="nearest"))
            x = self.blocks[level](x + levels[level] + told[level])
        flow, gate, paint = self.out(nn.functional.silu(x)).split((2, 1, 3 * PATCH**2), 1)
        flow = REACH * flow
        moved = warp(before, interpolate(flow, scale_factor=float(PATCH), mode="bilinear"))
        # At first little is painted, and not so little that nothing is learnt.
        share = torch.sigmoid(interpolate(gate, scale_factor=float(PATCH), mode="bilinear") - 2)
        return Drawn(moved + share * pixel_shuffle(paint, PATCH), flow)

    def code(self, video: Tensor, actions: Tensor) -> Coded:
        """Video `(b, t, 3, h, w)` in [-1, 1] in a closed loop, with no gradients from frame to frame; actions
        are `(b, t, a)`. UserErrors of `check_size`, and for actions of another length or a single frame."""
        self._check_clip(video, actions)
        frames, coded, drawn, seen = [video[:, 0]], list[Quantized](), list[Drawn](), list[Tensor]()
        for frame, action in zip(video[:, 1:].unbind(1), actions[:, 1:].unbind(1), strict=True):
            before = frames[-1].detach().clamp(-1, 1)
            coded.append(self.encode(before, frame, action))
            levels, features = self.look(before)
            drawn.append(self.draw(before, levels, coded[-1].values, action))
            frames.append(drawn[-1].frame)
            seen.append(features)
        losses = {name: torch.stack([each.losses[name] for each in coded]).mean() for name in coded[0].losses}
        tokens, flows = torch.stack([each.indices for each in coded], 1), [each.flow for each in drawn]
        return Coded(torch.stack(frames, 1), tokens, torch.stack(seen, 1), torch.stack(flows, 1), losses)

    def rebuilt(self, video: Tensor, clip: Clip, chance: Normals, *, noise: float) -> Rebuilt:
        """`code` from a first frame with noise of std `noise`, as that of a dream is not exact; `motion` is
        the error of the flow."""
        shown = video[:, :1] + noise * chance.normal(1, *video.shape[2:])
        coded = self.code(torch.cat([shown, video[:, 1:]], 1), clip.actions)
        losses, measured = dict(coded.losses), self.quantizer.recent_usage(coded.tokens)
        if self.config.motion and (true := true_motion(clip, PATCH)):
            # In patches, and linear where it is far off: what is near moves by tens of pixels.
            error = smooth_l1_loss(coded.flow / PATCH, true[0] / PATCH, reduction="none").mean(2)
            losses["motion"] = self.config.motion * (error * true[1]).sum() / true[1].sum().clamp(min=1)
        return Rebuilt(coded.video, losses, measured)

    @torch.no_grad()
    def restored(self, video: Tensor, actions: Tensor) -> Tensor:
        """Video encoded and decoded, but for its first frame."""
        return self.code(video, actions).video

    def _check_clip(self, video: Tensor, actions: Tensor) -> None:
        if actions.shape != (*video.shape[:2], self.config.actions):
            raise UserError(
                f"these clips have actions of length {actions.shape[-1]} and the codec takes "
                f"{self.config.actions}: build it for them"
            )
        if video.shape[1] < 2:
            raise UserError("tokens tell what a frame adds to the one before: give two frames or more")


def warp(frames: Tensor, flow: Tensor) -> Tensor:
    """Frames `(n, c, h, w)`, each pixel taken from where `flow` `(n, 2, h, w)`, in pixels, points."""
    n, _, h, w = frames.shape
    still = torch.eye(2, 3, dtype=frames.dtype, device=frames.device).expand(n, 2, 3)
    grid = affine_grid(still, [n, 1, h, w], align_corners=False)
    sides = flow.new_tensor([2 / w, 2 / h])
    grid = grid + rearrange(flow, "n c h w -> n h w c") * sides
    return grid_sample(frames, grid, mode="bicubic", padding_mode="border", align_corners=False)


def delta_tiny() -> DeltaCodecConfig:
    """For tests: a token of 256 for 16x16 pixels, given seven actions."""
    return DeltaCodecConfig(7, FSQConfig((4, 4, 4, 4)), (16, 16, 32))
