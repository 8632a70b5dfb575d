"""Delta codec: few tokens tell what a frame adds to the one before, given the action; the decoder sees both.

Delta-IRIS (arXiv 2406.19320, section 3.1) codes (x_t-1, a_t, x_t) and decodes (x_t-1, a_t, tokens): most of a
frame is in the frame before and is never quantized. Here the decoder moves the pixels of the frame before
along a flow, guesses what comes into view, and paints what is otherwise, as codecs of video do (DVC, arXiv
1812.00101):

    g = G(a_t)                                  a homography: what the turning of a camera does
    s = S(warp(x'_t-1, g))                      features of the frame before, so turned
    f, p = F(s, a_t)                            a flow, and what comes into view
    y = warp(x'_t-1, g after f) + p             the frame that is expected
    e = S'(y)                                   features of that

x' are decoded frames, in training as well, so that the tokens of a frame also mend the errors of those before
it and nothing drifts while there are true frames to code. The first frame is given. Tokens tell one of two
things (`tells`). `change`, as in delta-IRIS, is what else there is to tell:

    z_t = Q(A (x_t - y))
    x'_t = y + D(e, a_t, z_t) + B z_t

A and B are the principal components of the changes of patches, fixed: networks alone are hours behind them.
Latents near zero are zero (the dead zone of the quantizers of video codecs, H.264's for one), and no network
is beside A: what mends every place a little in every frame is noise to a model that has to predict it.

`frame` is the frame by itself, coarsely, painted over what is expected where the two do not agree:

    z_t = Q(E(x_t))
    x'_t = y + g (p - y),   p, g = D(e, a_t, z_t)

Drawn by a model, changes add up to noise or fog, while tokens of frames always mean some frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import interpolate, linear, pixel_shuffle, smooth_l1_loss

from dreamwalk.clip import Clip
from dreamwalk.codecs.codec import Normals, Rebuilt, Spread, Stride, require_whole_latents
from dreamwalk.codecs.frame_code import PAINTED, FrameEncoder, painted_over
from dreamwalk.codecs.motion import true_motion
from dreamwalk.codecs.patch import principal_components
from dreamwalk.codecs.pyramid import PATCH, Pyramid, UpPath
from dreamwalk.codecs.quantizers import FSQConfig, Quantized
from dreamwalk.codecs.tokens import QuantizerConfig
from dreamwalk.codecs.warp import cells, half_sides, sampled, transformed
from dreamwalk.errors import UserError
from dreamwalk.layers.modulation import zero_init
from dreamwalk.layers.precision import float32_arithmetic
from dreamwalk.validation import Count, Share

MIDDLE = "quantizer", "spread", "from_code", "change", "paint", "own"
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
    tells: Literal["change", "frame"] = "change"
    """What tokens tell: what is not as expected, or the frame by itself."""
    mistaken: Share = 0.3
    """Probability of training a clip after a frame that is not the one before (its last, mirrored), where
    tokens tell the frame by itself."""
    motion: float = 0.1
    """Weight of the error of the flow where the true one is known, in data with depth and poses. Otherwise
    the flow learns from pixels alone, which large motion misleads; 0 is for data without."""
    expected: float = 0.5
    """Weight of the error of the frame that is expected before any token."""
    dead_zone: float = 0.75
    """Latents up to this are zero, but for quantizers without a zero; in the norm of the pixels of a token,
    in [-1, 1], that they change."""

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


class LinearCode(nn.Module):
    """Vectors by a matrix that is computed and not learned: steps of an optimizer soon lose what it holds."""

    components: Tensor

    def __init__(self, size: int, out: int) -> None:
        super().__init__()
        self.register_buffer("components", torch.zeros(out, size))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.components)


class Seen(NamedTuple):
    """What is known of a frame by those before and the action."""

    turning: Tensor
    """`(b, 3, 3)`, as of `Turning`."""
    flow: Tensor
    """After that: from places to where they were, in coordinates of [-1, 1], `(b, 2, h / 4, w / 4)`."""
    expected: Tensor
    """Moved by both, with what comes into view, `(b, 3, h, w)`."""
    levels: list[Tensor]
    """Features of the frame that is expected, the finest first."""
    features: Tensor
    """Of the place of each token, `(b, h' w', f)`, of its level and the coarsest: for a model of tokens."""


class Coded(NamedTuple):
    """Frames in a closed loop: each coded from the decoded one before."""

    video: Tensor
    """Decoded, the first as given, `(b, t, 3, h, w)`."""
    tokens: Tensor
    """Of the frames after the first, `(b, t - 1, h', w')`, with more axes as of a `TokenCodec`."""
    told: Tensor
    """Those that were decoded: the same unless they were disturbed."""
    values: Tensor
    """Those of the tokens, `(b, t - 1, h', w', c)`."""
    seen: Tensor
    """Features of the frame before each, `(b, t - 1, h' w', f)`."""
    turning: Tensor
    """As of `Seen`, `(b, t - 1, 3, 3)`."""
    flow: Tensor
    """As of `Seen`, `(b, t - 1, 2, h / 4, w / 4)`."""
    expected: Tensor
    """As of `Seen`, `(b, t - 1, 3, h, w)`."""
    losses: dict[str, Tensor]
    """Of the quantizer, as of `Bottleneck`."""


Disturb = Callable[[Quantized], Quantized]
"""Tokens of a frame to others."""


class DeltaCodec(nn.Module):
    """`encode` a frame given the one before and the action, `decode` its tokens given the same."""

    image_channels = 3

    def __init__(self, config: DeltaCodecConfig) -> None:
        super().__init__()
        self.config, self.stride, self.vocabulary = config, config.stride, config.vocabulary
        widths = config.widths
        self.quantizer = config.quantizer.build()
        self.turning = Turning(config.actions)
        self.before, self.after = Pyramid(4, widths), Pyramid(4, widths)
        if self.tells_frame:
            self.own = FrameEncoder(widths[: config.level + 1], config.channels)
        else:
            pixels = 3 * self.stride[1] * self.stride[2]
            self.change, self.paint = LinearCode(pixels, config.channels), LinearCode(config.channels, pixels)
            self.spread = Spread(config.channels)
        self.from_code = nn.Conv2d(config.channels, widths[config.level], 1)
        self.expect = UpPath(widths, config.actions, 2 + 3 * PATCH**2)
        self.add = UpPath(widths, config.actions, PAINTED if self.tells_frame else 3 * PATCH**2)

    @property
    def tells_frame(self) -> bool:
        """Whether tokens tell a frame by itself."""
        return self.config.tells == "frame"

    @property
    def seen_features(self) -> int:
        """Of the place of a token: `Seen.features`."""
        return self.config.widths[self.config.level] + self.config.widths[-1]

    @property
    def fitted(self) -> bool:
        """Whether the linear code, where there is one, has been computed."""
        return self.tells_frame or bool(self.change.components.any())

    @torch.no_grad()
    def fit(self, video: Tensor) -> None:
        """Compute the linear code from a large batch of video `(b, t, 3, h, w)` in [-1, 1]: the principal
        components of what frames change, the largest in the last channel, and what their codes tell of it."""
        changes = self._patches((video[:, 1:] - video[:, :-1]).flatten(0, 1))
        flat = changes.flatten(0, -2).double()
        self.change.components.copy_(principal_components(flat, self.config.channels)[1].flip(0))
        latents = self.change(changes)
        self.spread.measure(latents)
        values = self._linear(self.quantizer(self._shrunk(self.spread(latents))).values).flatten(0, -2)
        self.paint.components.copy_(torch.linalg.lstsq(values.double(), flat).solution.T)

    def _patches(self, frames: Tensor) -> Tensor:
        """Pixels `(.., 3, h, w)` of the place of each token, `(.., h', w', 3 * p * p)`."""
        across = self.stride[2]
        return rearrange(frames, "... c (h p) (w q) -> ... h w (c p q)", p=self.stride[1], q=across)

    def check_size(self, video: Tensor) -> None:
        """UserError with the nearest size for frames that cannot be coded."""
        require_whole_latents(video, self.stride)

    def look(self, before: Tensor, action: Tensor) -> Seen:
        """Frames `(b, 3, h, w)` in [-1, 1] as they are seen after actions `(b, a)`; UserErrors of
        `check_size`."""
        self.check_size(before)
        turning, (h, w) = self.turning(action), before.shape[-2:]
        shown = torch.cat([before, torch.ones_like(before[:, :1])], 1)
        levels = self.before(sampled(shown, transformed(turning, cells(before, h, w))))
        flow, paint = self.expect(levels, action).to(before.dtype).tensor_split([2], 1)
        flow = flow * (REACH / half_sides(before, h, w)[:, None, None])
        moved = self._moved(shown, turning, flow)
        expected = moved[:, :3] + pixel_shuffle(paint, PATCH)
        levels = self.after(torch.cat([expected, moved[:, 3:]], 1))
        own = levels[self.config.level]
        coarse = interpolate(levels[-1], size=own.shape[-2:], mode="nearest")
        features = rearrange(torch.cat([own, coarse], 1), "b c h w -> b (h w) c")
        return Seen(turning, flow, expected, levels, features)

    def latents(self, seen: Seen, frame: Tensor) -> Tensor:
        """What is quantized of frames `(b, 3, h, w)` in [-1, 1] after others, `(b, h', w', c)`."""
        if self.tells_frame:
            return self.own(frame)
        latents = self.change(self._patches(frame - seen.expected)).to(frame.dtype)
        return self._shrunk(self.spread(latents))

    def encode(self, seen: Seen, frame: Tensor) -> Quantized:
        """Tokens of frames `(b, 3, h, w)` in [-1, 1] after others."""
        latents = self.latents(seen, frame)
        if self.training and torch.is_grad_enabled():  # a step of training, and not a look on the way
            self.quantizer.measure(latents.detach())
        return self.quantizer(latents)

    @property
    def _dead_zone(self) -> Tensor | float:
        """In stds of the latents."""
        return self.config.dead_zone / self.spread.std if self.quantizer.has_zero else 0.0

    def _shrunk(self, latents: Tensor) -> Tensor:
        """Latents in stds without their dead zone."""
        return latents.sign() * (latents.abs() - self._dead_zone).clamp(min=0)

    def _linear(self, values: Tensor) -> Tensor:
        """What values of tokens tell of the linear code: the way back."""
        return self.spread.undo(values + self._dead_zone * values.sign())

    def decode(self, seen: Seen, values: Tensor, action: Tensor) -> Tensor:
        """Frames `(b, 3, h, w)` in [-1, 1] of the values of tokens `(b, h', w', c)`."""
        return self.draw(seen, values, action).clamp(-1, 1)

    def draw(self, seen: Seen, values: Tensor, action: Tensor) -> Tensor:
        """The same beyond that range, for training."""
        levels = list(seen.levels)
        code = self.from_code(rearrange(values, "b h w c -> b c h w").to(seen.expected.dtype))
        levels[self.config.level] = levels[self.config.level] + code
        if self.tells_frame:
            return painted_over(seen.expected, self.add(levels, action))
        fine = pixel_shuffle(self.add(levels, action), PATCH)
        coarse = pixel_shuffle(self.paint(self._linear(values)).movedim(-1, 1), self.stride[1])
        return seen.expected + fine + coarse

    def _moved(self, images: Tensor, turning: Tensor, flow: Tensor) -> Tensor:
        """Images `(b, c, h, w)` with pixels taken from where they were."""
        # Pixels mislead a flow that is yet wrong: where the true one is told, they have no say.
        flow, turning = (x.detach() if self.config.motion else x for x in (flow, turning))
        fine = interpolate(flow, scale_factor=float(PATCH), mode="bilinear")
        places = cells(images, *images.shape[-2:]) + rearrange(fine, "b c h w -> b h w c")
        return sampled(images, transformed(turning, places))

    def code(self, video: Tensor, actions: Tensor, disturb: Disturb | None = None) -> Coded:
        """Video `(b, t, 3, h, w)` in [-1, 1] in a closed loop, with no gradients from frame to frame; actions
        are `(b, t, a)`. What is decoded are the values of tokens, or what `disturb` makes of them.
        UserErrors of `check_size`, and for actions of another length or a single frame."""
        self._check_clip(video, actions)
        frames, coded, told, seen = [video[:, 0]], list[Quantized](), list[Quantized](), list[Seen]()
        for frame, action in zip(video[:, 1:].unbind(1), actions[:, 1:].unbind(1), strict=True):
            seen.append(self.look(frames[-1].detach().clamp(-1, 1), action))
            coded.append(self.encode(seen[-1], frame))
            told.append(disturb(coded[-1]) if disturb else coded[-1])
            frames.append(self.draw(seen[-1], told[-1].values, action))
        losses = {name: torch.stack([each.losses[name] for each in coded]).mean() for name in coded[0].losses}
        return Coded(
            torch.stack(frames, 1),
            torch.stack([each.indices for each in coded], 1),
            torch.stack([each.indices for each in told], 1),
            torch.stack([each.values for each in coded], 1),
            torch.stack([each.features for each in seen], 1),
            torch.stack([each.turning for each in seen], 1),
            torch.stack([each.flow for each in seen], 1),
            torch.stack([each.expected for each in seen], 1),
            losses,
        )

    def rebuilt(self, video: Tensor, clip: Clip, chance: Normals, *, noise: float) -> Rebuilt:
        """`code` from a first frame with noise of std `noise`, as that of a dream is not exact; `motion` is
        the error of the flow. What follows a wrong frame is not expected, nor moved."""
        shown = video[:, :1] + noise * chance.normal(1, *video.shape[2:])
        follows = torch.ones(video.shape[0], video.shape[1] - 1, dtype=torch.bool, device=video.device)
        if self.tells_frame:
            follows[:, :1] = chance.uniform(1) >= self.config.mistaken
            shown = torch.where(follows[:, :1, None, None, None], shown, video[:, -1:].flip(-1))
        coded = self.code(torch.cat([shown, video[:, 1:]], 1), clip.actions)
        losses, measured = dict(coded.losses), self.quantizer.recent_usage(coded.tokens)
        error = (coded.expected - video[:, 1:]) * follows[..., None, None, None]
        losses["expected"] = self.config.expected * (error.abs() + error.square()).mean() / 2
        measured = measured | {"zeros": (coded.values == 0).float().mean()}
        if self.config.motion and (true := true_motion(clip, PATCH)):
            flow, known = true
            losses["motion"] = self.config.motion * motion_error(
                coded, flow, known & follows[..., None, None]
            )
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
    """Of the flow and of turns alone, against `true_motion` at the finest level, where it is `known`."""
    (height, width), turning = coded.video.shape[-2:], coded.turning.flatten(0, 1)
    places = cells(coded.flow, height // PATCH, width // PATCH)
    flow, half = rearrange(coded.flow, "b t c h w -> (b t) h w c"), half_sides(coded.flow, height, width)
    found = [(transformed(turning, places + part) - places) * half for part in (flow, torch.zeros_like(flow))]
    wanted = rearrange(true, "b t c h w -> (b t) h w c").expand(2, -1, -1, -1, -1)
    # In patches, and linear where it is far off: what is near moves by tens of pixels.
    error = smooth_l1_loss(torch.stack(found) / PATCH, wanted / PATCH, reduction="none").mean((0, -1))
    return (error * known.flatten(0, 1)).sum() / known.sum().clamp(min=1)


def delta_tiny() -> DeltaCodecConfig:
    """For tests: a token of 256 for 16x16 pixels, given seven actions."""
    return DeltaCodecConfig(7, FSQConfig((4, 4, 4, 4)), (16, 16, 32))


def fine_steps() -> FSQConfig:
    """Of the delta codec of Doom, 47 bits a token: finer in the last channels, where frames change most."""
    return FSQConfig((5,) * 6 + (7,) * 4 + (9, 9, 11, 13, 17, 17))


def whole_frames() -> DeltaCodecConfig:
    """Of a dream of Doom: 48 tokens of 22 bits tell a frame by itself."""
    return DeltaCodecConfig(actions=7, quantizer=FSQConfig((7,) * 8), tells="frame")
