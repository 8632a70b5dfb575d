"""Delta codec: few tokens tell what a frame adds to the one before, given the action; the decoder sees both.

Delta-IRIS (arXiv 2406.19320, section 3.1) codes (x_t-1, a_t, x_t) and decodes (x_t-1, a_t, tokens): most of a
frame is in the frame before and is never quantized. Here the decoder moves the pixels of the frame before
along a flow and paints over them what is new, as codecs of video do (DVC, arXiv 1812.00101):

    g = G(a_t)                                  a homography: what the turning of a camera does
    y = warp(x'_t-1, g)
    z_t = Q(E(y, x_t, a_t))
    flow, paint = D(y, a_t, z_t)
    x'_t = warp(x'_t-1, g after flow) + paint

x' are decoded frames, in training as well, so that the tokens of a frame also mend the errors of those before
it and nothing drifts while there are true frames to code. The first frame is given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import grid_sample, interpolate, pixel_shuffle, smooth_l1_loss

from dreamwalk.clip import Clip
from dreamwalk.codecs.codec import Normals, Rebuilt, Spread, Stride, require_whole_latents
from dreamwalk.codecs.motion import true_motion
from dreamwalk.codecs.quantizers import FSQConfig, Quantized
from dreamwalk.codecs.tokens import QuantizerConfig
from dreamwalk.errors import UserError
from dreamwalk.layers.modulation import zero_init
from dreamwalk.layers.precision import float32_arithmetic
from dreamwalk.validation import Count

PATCH = 4
"""Pixels of a side at the finest level; the flow is as coarse as that."""
MIDDLE = "quantizer", "spread", "to_code", "from_code"
"""Parts whose shapes are those of the quantizer."""
REACH = 8.0
"""Pixels of flow for an output of one."""


@dataclass(frozen=True)
class DeltaCodecConfig:
    """Sizes of a delta codec; the quantizer has the tokens."""

    actions: Count = 0
    """Length of the action vector; 0 for video without actions."""
    quantizer: QuantizerConfig = field(default_factory=FSQConfig)
    widths: tuple[int, ...] = (48, 96, 128, 128)
    """Channels at 1/4, 1/8, ... of the resolution."""
    level: Count = 2
    """Of these, from 0, the one whose places have tokens."""
    motion: float = 0.1
    """Weight of the error of the flow where the true one is known, in data with depth and poses. Otherwise
    the flow learns from pixels alone, which large motion misleads; 0 is for data without."""

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or not 0 <= self.level < len(self.widths):
            raise UserError(
                f"a delta codec has two levels or more, and its tokens one of them, not widths {self.widths} "
                f"and level {self.level}"
            )

    @property
    def channels(self) -> int:
        """Latent channels."""
        return self.quantizer.channels

    @property
    def stride(self) -> Stride:
        """Frames, rows and columns of pixels per token."""
        side = PATCH * 2**self.level
        return 1, side, side

    @property
    def vocabulary(self) -> int:
        """Codes that a token can be."""
        return self.quantizer.vocabulary

    def build(self) -> DeltaCodec:
        """The codec, with random weights: each frame is the one before."""
        return DeltaCodec(self)


class Norm(nn.GroupNorm):
    """In the precision of its weights: in bfloat16 it is slower than the convolutions around it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class NormedBlock(nn.Module):
    """Two convolutions beside a shortcut, each behind a norm of its frame; the identity at first. Without
    norms the features of the coarse levels grow until nothing is learnt any more."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(Norm(8, width) for _ in range(2))
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = zero_init(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(nn.functional.silu(self.norms[0](x)))
        return x + self.second(nn.functional.silu(self.norms[1](y)))


class Pyramid(nn.Module):
    """Images `(n, c, h, w)` to features at 1/4, 1/8, ..., with an action told at every level."""

    def __init__(self, channels: int, config: DeltaCodecConfig) -> None:
        super().__init__()
        widths = config.widths
        self.unshuffle = nn.PixelUnshuffle(PATCH)
        self.enter = nn.Conv2d(channels * PATCH**2 + 2, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.Sequential(Norm(8, a), nn.Conv2d(a, b, 3, stride=2, padding=1)) for a, b in pairwise(widths)
        )
        self.blocks = nn.ModuleList(NormedBlock(width) for width in widths)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The finest first."""
        patches = self.unshuffle(images)
        # Where a patch lies tells how it moves when the camera goes on or turns.
        row, column = (torch.linspace(-1, 1, side, device=images.device) for side in patches.shape[-2:])
        places = torch.stack(torch.meshgrid(row, column, indexing="ij")).to(images.dtype)
        levels = [self.blocks[0](self.enter(torch.cat([patches, places.expand(len(images), -1, -1, -1)], 1)))]
        for down, block in zip(self.down, list(self.blocks)[1:], strict=True):
            levels.append(block(down(levels[-1])))
        return levels


class Turning(nn.Module):
    """Actions to homographies, by which codecs of video tell the motion of a whole frame at once (MPEG-4's
    global motion compensation): a turn moves all pixels far, wherever the walls are."""

    def __init__(self, actions: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(actions, 64), nn.SiLU(), zero_init(nn.Linear(64, 8)))

    @float32_arithmetic()
    def forward(self, action: Tensor) -> Tensor:
        """`(b, 3, 3)` for actions `(b, a)`, in coordinates of [-1, 1]; at first the identity."""
        change = nn.functional.pad(self.mlp(action), (0, 1)).unflatten(1, (3, 3))
        return torch.eye(3, dtype=change.dtype, device=change.device) + change


class Seen(NamedTuple):
    """What the decoder sees of the frames before."""

    before: Tensor
    """As they were, `(b, 3, h, w)`."""
    turning: Tensor
    """`(b, 3, 3)`, as of `Turning`."""
    turned: Tensor
    """By it, with a fourth channel: 1 where something was in view."""
    levels: list[Tensor]
    """Features of those, the finest first."""
    features: Tensor
    """Of the place of each token, `(b, h' w', f)`, of its level and the coarsest: for a model of tokens."""


class Drawn(NamedTuple):
    """A frame as it is decoded."""

    frame: Tensor
    """`(b, 3, h, w)`."""
    flow: Tensor
    """From its places to where they were in the turned frame, in coordinates of [-1, 1], at a quarter of the
    resolution, `(b, h / 4, w / 4, 2)`."""


class Coded(NamedTuple):
    """Frames in a closed loop: each coded from the decoded one before."""

    video: Tensor
    """Decoded, the first as given, `(b, t, 3, h, w)`."""
    tokens: Tensor
    """Of the frames after the first, `(b, t - 1, h', w')`, with more axes as of a `TokenCodec`."""
    values: Tensor
    """Those of the tokens, `(b, t - 1, h', w', c)`."""
    seen: Tensor
    """Features of the frame before each, `(b, t - 1, h' w', f)`."""
    turning: Tensor
    """As of `Seen`, `(b, t - 1, 3, 3)`."""
    flow: Tensor
    """As of `Drawn`, `(b, t - 1, h / 4, w / 4, 2)`."""
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
        self.turning = Turning(config.actions)
        self.before, self.both = Pyramid(4, config), Pyramid(10, config)
        width = widths[config.level]
        self.to_code = nn.Sequential(Norm(1, width), nn.Conv2d(width, config.channels, 1, bias=False))
        self.spread = Spread(config.channels)
        self.from_code = nn.Conv2d(config.channels, width, 1)
        self.action = nn.ModuleList(nn.Linear(config.actions, width) for width in widths)
        self.blocks = nn.ModuleList(NormedBlock(width) for width in widths)
        self.up = nn.ModuleList(
            nn.Sequential(Norm(8, b), nn.Conv2d(b, a, 3, padding=1)) for a, b in pairwise(widths)
        )
        self.norm = Norm(8, widths[0])
        self.out = zero_init(nn.Conv2d(widths[0], 2 + 3 * PATCH**2, 3, padding=1))

    @property
    def seen_features(self) -> int:
        """Of the place of a token: `Seen.features`."""
        return self.config.widths[self.config.level] + self.config.widths[-1]

    def check_size(self, video: Tensor) -> None:
        """UserError with the nearest size for frames that cannot be coded."""
        require_whole_latents(video, self.stride)

    def look(self, before: Tensor, action: Tensor) -> Seen:
        """Frames `(b, 3, h, w)` in [-1, 1] as they are seen after actions `(b, a)`; UserErrors of
        `check_size`."""
        self.check_size(before)
        turning, (h, w) = self.turning(action), before.shape[-2:]
        ones = torch.ones_like(before[:, :1])
        turned = sampled(torch.cat([before, ones], 1), transformed(turning, cells(before, h, w)))
        levels = self.before(turned)
        own = levels[self.config.level]
        coarse = interpolate(levels[-1], size=own.shape[-2:], mode="nearest")
        features = rearrange(torch.cat([own, coarse], 1), "b c h w -> b (h w) c")
        return Seen(before, turning, turned, levels, features)

    def latents(self, seen: Seen, frame: Tensor) -> Tensor:
        """What is quantized of frames `(b, 3, h, w)` in [-1, 1] after others, `(b, h', w', c)`."""
        change = frame - seen.turned[:, :3]
        features = self.both(torch.cat([seen.turned, frame, change], 1))[self.config.level]
        latents = rearrange(self.to_code(features).to(frame.dtype), "b c h w -> b h w c")
        if self._measures:
            self.spread.measure(latents)
        return self.spread(latents)

    def encode(self, seen: Seen, frame: Tensor) -> Quantized:
        """Tokens of frames `(b, 3, h, w)` in [-1, 1] after others."""
        latents = self.latents(seen, frame)
        if self._measures:
            self.quantizer.measure(latents.detach())
        return self.quantizer(latents)

    @property
    def _measures(self) -> bool:
        """Whether this is a step of training, and not a look on the way."""
        return self.training and torch.is_grad_enabled()

    def decode(self, seen: Seen, values: Tensor, action: Tensor) -> Tensor:
        """Frames `(b, 3, h, w)` in [-1, 1] of the values of tokens `(b, h', w', c)`."""
        return self.draw(seen, values, action).frame.clamp(-1, 1)

    def draw(self, seen: Seen, values: Tensor, action: Tensor) -> Drawn:
        """The same with the flow, for training."""
        code = self.from_code(rearrange(values, "b h w c -> b c h w").to(seen.before.dtype))
        known = [
            x + linear(action)[:, :, None, None] for x, linear in zip(seen.levels, self.action, strict=True)
        ]
        known[self.config.level] = known[self.config.level] + code
        x = self.blocks[-1](known[-1])
        for level in range(len(known) - 2, -1, -1):
            x = self.up[level](interpolate(x, scale_factor=2.0, mode="nearest"))
            x = self.blocks[level](x + known[level])
        told = self.out(nn.functional.silu(self.norm(x))).to(seen.before.dtype)
        flow, paint = told.split((2, 3 * PATCH**2), 1)
        height, width = seen.before.shape[-2:]
        flow = flow * (REACH / half_sides(flow, height, width)[:, None, None])
        # Pixels mislead a flow that is yet wrong: where the true one is told, they have no say.
        taken, turning = (x.detach() if self.config.motion else x for x in (flow, seen.turning))
        fine = interpolate(taken, scale_factor=float(PATCH), mode="bilinear")
        moved = cells(fine, height, width) + rearrange(fine, "b c h w -> b h w c")
        frame = sampled(seen.before, transformed(turning, moved)) + pixel_shuffle(paint, PATCH)
        return Drawn(frame, rearrange(flow, "b c h w -> b h w c"))

    def code(self, video: Tensor, actions: Tensor) -> Coded:
        """Video `(b, t, 3, h, w)` in [-1, 1] in a closed loop, with no gradients from frame to frame; actions
        are `(b, t, a)`. UserErrors of `check_size`, and for actions of another length or a single frame."""
        self._check_clip(video, actions)
        frames, coded, drawn, seen = [video[:, 0]], list[Quantized](), list[Drawn](), list[Seen]()
        for frame, action in zip(video[:, 1:].unbind(1), actions[:, 1:].unbind(1), strict=True):
            seen.append(self.look(frames[-1].detach().clamp(-1, 1), action))
            coded.append(self.encode(seen[-1], frame))
            drawn.append(self.draw(seen[-1], coded[-1].values, action))
            frames.append(drawn[-1].frame)
        losses = {name: torch.stack([each.losses[name] for each in coded]).mean() for name in coded[0].losses}
        return Coded(
            torch.stack(frames, 1),
            torch.stack([each.indices for each in coded], 1),
            torch.stack([each.values for each in coded], 1),
            torch.stack([each.features for each in seen], 1),
            torch.stack([each.turning for each in seen], 1),
            torch.stack([each.flow for each in drawn], 1),
            losses,
        )

    def rebuilt(self, video: Tensor, clip: Clip, chance: Normals, *, noise: float) -> Rebuilt:
        """`code` from a first frame with noise of std `noise`, as that of a dream is not exact; `motion` is
        the error of the flow."""
        shown = video[:, :1] + noise * chance.normal(1, *video.shape[2:])
        coded = self.code(torch.cat([shown, video[:, 1:]], 1), clip.actions)
        losses, measured = dict(coded.losses), self.quantizer.recent_usage(coded.tokens)
        if self.config.motion and (true := true_motion(clip, PATCH)):
            losses["motion"] = self.config.motion * motion_error(coded, *true)
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


def motion_error(coded: Coded, true: Tensor, known: Tensor) -> Tensor:
    """Of flows and of the turns in them, against `true_motion` at the finest level, where it is `known`."""
    (height, width), turning = coded.video.shape[-2:], coded.turning.flatten(0, 1)
    places = cells(coded.flow, height // PATCH, width // PATCH)
    flow, half = coded.flow.flatten(0, 1), half_sides(coded.flow, height, width)
    found = [(transformed(turning, places + part) - places) * half for part in (flow, torch.zeros_like(flow))]
    wanted = rearrange(true, "b t c h w -> (b t) h w c").expand(2, -1, -1, -1, -1)
    # In patches, and linear where it is far off: what is near moves by tens of pixels.
    error = smooth_l1_loss(torch.stack(found) / PATCH, wanted / PATCH, reduction="none").mean((0, -1))
    return (error * known.flatten(0, 1)).sum() / known.sum().clamp(min=1)


def half_sides(like: Tensor, height: int, width: int) -> Tensor:
    """Pixels of a coordinate of one, across and down."""
    return like.new_tensor([width / 2, height / 2])


def cells(like: Tensor, height: int, width: int) -> Tensor:
    """Centres of cells `(1, h, w, 2)`, across and down, in [-1, 1]."""
    down, across = ((torch.arange(n, device=like.device) + 0.5) * 2 / n - 1 for n in (height, width))
    return torch.stack(torch.meshgrid(across, down, indexing="xy"), -1)[None].to(like.dtype)


@float32_arithmetic()
def transformed(homography: Tensor, points: Tensor) -> Tensor:
    """Points `(b, h, w, 2)` by homographies `(b, 3, 3)`."""
    points = nn.functional.pad(points, (0, 1), value=1.0).expand(len(homography), -1, -1, -1)
    full = torch.einsum("bij,bhwj->bhwi", homography, points)
    return full[..., :2] / full[..., 2:].clamp(min=0.1)  # nothing is behind the camera


def sampled(frames: Tensor, places: Tensor) -> Tensor:
    """Frames `(b, c, h, w)`, each pixel taken from a place `(b, h, w, 2)`, 0 beyond the frame.

    Bilinear sampling blurs what is moved again and again, and torch's bicubic one sharpens it until it
    ripples: two thirds of this and a third of that are about Catmull and Rom's, which does neither."""
    cubic, linear = (
        grid_sample(frames, places, mode=mode, align_corners=False) for mode in ("bicubic", "bilinear")
    )
    return (2 * cubic + linear) / 3


def delta_tiny() -> DeltaCodecConfig:
    """For tests: a token of 256 for 16x16 pixels, given seven actions."""
    return DeltaCodecConfig(7, FSQConfig((4, 4, 4, 4)), (16, 16, 32))
