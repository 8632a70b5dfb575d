"""Voyager: a clip with depth along a camera path, from one picture with depth (arXiv 2506.04225).

A cloud of points p0 is made of the picture. Every camera c_k of the path renders what it sees of it, and a
transformer over whole clips dreams the rest, colours and depth in one picture:

    I_k, D_k, M_k = render(p0, c_k)                      partial RGB, partial depth, mask (section 4.1)
    x = encode([I; gap; D]), I and D of the true clip    stacked in rows, before the codec
    z = [x_sigma ; encode(frame 0) at 0 ; first ; encode(M * [I_k; gap; D_k]) ; pool(M)]
    |v(z, sigma, text) - (eps - x)|^2 -> least           flow matching on x_sigma = (1 - sigma) x + sigma eps

    paper's word                        our word
    partial RGB, depth, mask            `AlongPath.rgb`, `depth`, `known`; in training `rendered_from_some`
    reference image                     `AlongPath.picture`, `picture_depth`
    RGB-D in one picture                `VoyagerConfig.depth`, `codecs/rgbd_rows.py`
    16+16+1+16+1 channels               `cond_channels` = 2 (c + 1), behind the c noisy ones
    context-based control (4.2)         `ContextMMDiTConfig`, `backbones/context_blocks.py`
    RGB-only, RGB-D, + control          `stages`: `depth="none"`; `MMDiTConfig`; `ContextMMDiTConfig`
    timestep, shift                     1000 sigma, `shift`
    world cache, smooth sampling        `memory/world_cache.py`, `path_sampling.py`

The paper masks the true frames with M_k when it trains and renders when it samples; here both are rendered.
As released, what is unknown is black and at the far end of the depth code, the text encoder is shown the
first picture with its depth below, and `discard_frames` first frames of a path are cut off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dreamwalk.backbones.context_blocks import ContextMMDiTConfig, led_by_context, with_context
from dreamwalk.backbones.mmdit import MMDiTConfig, hunyuan_13b
from dreamwalk.clip import Clip, FittingData
from dreamwalk.codecs.block import BlockCodecConfig
from dreamwalk.codecs.causal import CausalVAEConfig
from dreamwalk.codecs.patch import PatchCodecConfig
from dreamwalk.codecs.rgbd import codec_input, depth_channel, depth_of
from dreamwalk.codecs.rgbd_rows import GAP, PACKINGS, DepthPlace, DepthRange, Packing, known_cells
from dreamwalk.conditions.byte_encoder import ByteEncoderConfig
from dreamwalk.conditions.hunyuan import HunyuanTextConfig
from dreamwalk.errors import UserError
from dreamwalk.layers.precision import float32_arithmetic
from dreamwalk.layers.text import TextEmbedding
from dreamwalk.memory.pixel_filter import PixelFilter, PixelFilterConfig
from dreamwalk.schedules.flow import add_noise
from dreamwalk.schedules.generator import KeyedGenerator
from dreamwalk.systems.along_path import AlongPath, rendered_from_first, rendered_from_some
from dreamwalk.systems.clip_generator import ClipConfig, ClipGenerator
from dreamwalk.systems.clip_request import ClipRequest
from dreamwalk.systems.conditionings import Conditioning, image_channels
from dreamwalk.validation import Positive, Share


@dataclass(frozen=True)
class Frames:
    """Frames with depth, `t` of each of `b` clips."""

    rgb: Tensor
    """`(b, t, 3, h, w)` in [-1, 1]."""
    depth: Tensor | None
    """Planar, in world units, 0 for the sky, `(b, t, h, w)`; None where the system makes none."""
    depth_range: DepthRange
    """The range that depth was coded in, `(b or 1,)`."""


@dataclass(frozen=True)
class VoyagerConfig(ClipConfig):
    """The parts of a generator of clips along a path, and how it is trained and sampled."""

    depth: DepthPlace = "rows"
    """Where depth is: below the colours, beside them as a channel of the codec, or left out."""
    coverage: Literal["whole", "share"] = "whole"
    """What is told of a cell: whether it is known altogether, as published, or how much of it."""
    headroom: Positive = 1.5
    """How many times nearer or farther than what is known of a path a depth may be."""
    image_prob: Share = 1.0
    focal: tuple[Positive, Positive] = (1.0, 1.5)
    """Focal lengths of cameras that nothing is said of, in widths and in heights of the picture."""
    unit: Positive = 1.0
    """World units of a unit of paths that are told in words."""
    estimator: PixelFilterConfig | None = None
    """What tells the depth of a picture that comes without; it is trained along."""
    pixels: PixelFilterConfig | None = None
    """What carries the pixels that are known into decoded frames, at their full sharpness; trained along."""

    def __post_init__(self) -> None:
        super().__post_init__()
        backbone, channels = self.backbone, getattr(self.codec, "image_channels", 3)
        if backbone.cond_channels != 2 * backbone.channels + 2:
            raise UserError(
                f"a path is told in {2 * backbone.channels + 2} channels beside {backbone.channels}: let "
                f"`cond_channels` be that, not {backbone.cond_channels}"
            )
        if channels != self.packing.image_channels:
            raise UserError(
                f"with `depth` '{self.depth}' the codec is one of {self.packing.image_channels} channels, "
                f"not of {channels}"
            )

    @property
    def packing(self) -> Packing:
        """How pictures with depth become pictures of the codec."""
        return PACKINGS[self.depth]

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width of pictures, of which `size` is what they are coded as."""
        return self.packing.picture_size(self.size)

    @property
    def needs_depth(self) -> bool:
        return True

    def build(self) -> Voyager:
        return Voyager(self)


class Voyager(ClipGenerator):
    """A frozen video codec, a text encoder, and a transformer over clips that is told what a path shows."""

    name = "voyager"
    config: VoyagerConfig
    generates = "scenes"

    def __init__(self, config: VoyagerConfig) -> None:
        super().__init__(config)
        self.estimator = config.estimator.build(3, 1) if config.estimator else None
        self.pixels = PixelFilter(config.pixels) if config.pixels and config.depth != "none" else None
        if config.predicts == "clean":
            # What is known comes out as it went in, and has not to be learnt; the network corrects it.
            c, e = config.backbone.channels, config.backbone.cond_channels
            self.skip = nn.Linear(e, c)
            with torch.no_grad():
                self.skip.weight.copy_(0.7 * torch.eye(c, e).roll(c + 1, 1))
                self.skip.bias.zero_()

    def fit_from_data(self, data: FittingData) -> None:
        if not self.codec.fitted:
            clip = data.large_batch()
            depth_range = DepthRange.of(clip.depth, headroom=self.config.headroom)
            self.codec.fit(self.packed(clip, depth_range))

    def adapt_weights(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Weights with less beside their latents, and of a network without context blocks."""
        backbone, tensors = self.config.backbone, super().adapt_weights(tensors, config)
        if not isinstance(backbone, ContextMMDiTConfig):
            return tensors
        return with_context(tensors, backbone, prefix="backbone.")

    def packed(self, clip: Clip, depth_range: DepthRange) -> Tensor:
        """The frames of a batched clip as the codec sees them, `(b, t, c, h', w')` in [-1, 1]."""
        return self.config.packing.join(clip.video.float() / 127.5 - 1, depth_range.code(clip.depth))

    @torch.no_grad()
    @float32_arithmetic()
    def path_channels(self, path: AlongPath) -> Tensor:
        """What is beside the latents, `(b or 1, t', 2 c + 2, h', w')`: the first frame's latent and where it
        is, then latents of what is known, and the cells that are known altogether, 1, or not, -1."""
        packing, codec, path = self.config.packing, self.codec, path.ranged(self.config.headroom)
        first, partial = (codec.encode(part(packing).to(self.device)) for part in (path.first, path.partial))
        known = packing.known(path.known.to(self.device))
        cells = known_cells(known, codec.stride, coverage=self.config.coverage)[:, :, None]
        return torch.cat([image_channels(first, partial.shape[1]), partial, cells.to(partial)], dim=2)

    def prediction(
        self, x: Tensor, sigma: Tensor, text: TextEmbedding, *, guidance: Tensor | None, cond: Tensor | None
    ) -> Tensor:
        out = super().prediction(x, sigma, text, guidance=guidance, cond=cond)
        if self.config.predicts == "velocity" or cond is None:
            return out
        return out + self.skip(cond.movedim(2, -1)).movedim(-1, 2)

    def loss(self, clip: Clip, generator: KeyedGenerator) -> dict[str, Tensor]:
        """Flow matching on all latents of a clip, told what its first frame shows along its path."""
        path = rendered_from_some(clip, generator).ranged(self.config.headroom)
        assert path.depth_range is not None
        with torch.no_grad(), float32_arithmetic():
            x = self.codec.encode(self.packed(clip, path.depth_range))
        cond = self.path_channels(path)
        text = self.training_text(clip, generator, self.first_picture(path))
        sigma = self.training_sigma(generator)[:, 0]
        eps = generator.normal(*x.shape[1:])
        noisy = add_noise(x, eps, sigma)
        v = self.velocity(noisy, sigma, text, guidance=None, cond=cond)
        error = (self.codec.channel_weights * (v - (eps - x)).square()).mean(2)
        known = cond[:, :, -1] > 0
        parts = {"known": known, "unknown": ~known}
        apart = {name: (error * chosen).sum() / chosen.sum().clamp(min=1) for name, chosen in parts.items()}
        terms = {"loss": error.mean()} | {name: part.detach() for name, part in apart.items()}
        if self.estimator is not None:
            wrong = (self.estimator(path.picture)[:, 0] - depth_channel(path.picture_depth)).abs().mean()
            terms |= {"loss": terms["loss"] + wrong, "estimate": wrong.detach()}
        if self.pixels is not None:
            level = sigma.view(-1, 1, 1, 1, 1)
            with torch.no_grad(), float32_arithmetic():
                decoded = self.codec.decode((noisy - level * v).float(), len(clip))
            wrong = (self._filtered(self._parted(decoded, path), path) - codec_input(clip, 4)).abs()
            wrong = ((1 - level) * wrong).mean()  # the noisier the latents, the less is decoded of them
            terms |= {"loss": terms["loss"] + wrong, "pixels": wrong.detach()}
        return terms

    def _parted(self, video: Tensor, path: AlongPath) -> Frames:
        """Decoded clips `(b, t, c, h', w')` of a ranged path as frames with depth."""
        assert path.depth_range is not None
        (rgb, code), depth_range = self.config.packing.part(video), path.depth_range.to(video.device)
        return Frames(rgb, None if code is None else depth_range.depth(code), depth_range)

    def _filtered(self, made: Frames, path: AlongPath) -> Tensor:
        """Frames of a ranged path as RGB-D `(b, t, 4, h, w)`, with what is known of them."""
        assert self.pixels is not None and made.depth is not None
        rgbd = torch.cat([made.rgb, depth_channel(made.depth)[:, :, None]], 2)
        known = path.rendering(len(rgbd), self.config.discard_frames, device=rgbd.device)
        return self.pixels(rgbd.flatten(0, 1), known).unflatten(0, rgbd.shape[:2])

    @torch.inference_mode()
    def finished(self, video: Tensor, path: AlongPath) -> Frames:
        """The frames of decoded clips `(b, t, c, h', w')` of a ranged path, as they are shown."""
        made = self._parted(video, path)
        if self.pixels is None:
            return made
        rgbd = self._filtered(made, path)
        return replace(made, rgb=rgbd[:, :, :3].clamp(-1, 1), depth=depth_of(rgbd[:, :, 3]))

    @torch.no_grad()
    def estimated_depth(self, picture: Tensor) -> Tensor | None:
        """Planar depth in world units `(b, h, w)` of pictures in [-1, 1] `(b, 3, h, w)`; None where there
        is no estimator."""
        return None if self.estimator is None else depth_of(self.estimator(picture)[:, 0])

    def check(self, request: ClipRequest) -> None:
        """UserError, with what mends it, for what this system cannot sample."""
        path = request.conditioning
        if not isinstance(path, AlongPath):
            raise UserError("this system makes clips along a path: give it an `AlongPath` of a rendered one")
        size, units = path.picture.shape[-2:], self.token_size
        self._check_tokens((size[0], size[1]), "pictures")
        if self.config.depth == "rows" and GAP % units[0]:
            raise UserError(f"tokens {units[0]} rows high do not divide the gap of {GAP}: take smaller ones")
        if len(path.rgb) not in (1, len(request.prompts)):
            raise UserError(f"there are {len(path.rgb)} paths and {len(request.prompts)} prompts: pair them")
        super().check(request)

    def first_picture(self, conditioning: Conditioning) -> Tensor | None:
        assert isinstance(conditioning, AlongPath)
        shown = conditioning.ranged(self.config.headroom).first(self.config.packing)[:, 0, :3]
        return ((shown.clamp(-1, 1) + 1) * 127.5).round().byte()

    @torch.inference_mode()
    def sample_rgbd(self, request: ClipRequest) -> Frames:
        """The clips of a request with their depth; UserErrors as of `check`."""
        self.check(request)
        assert isinstance(request.conditioning, AlongPath)
        path = request.conditioning.ranged(self.config.headroom)
        return self.finished(self.sample_video(replace(request, conditioning=path)), path)

    @torch.inference_mode()
    def preview(self, clip: Clip) -> Tensor:
        """Colours along the paths of `clip`, from its first frames, in [-1, 1] `(b, t, 3, h, w)`."""
        request = ClipRequest(tuple(clip.caption), rendered_from_first(clip), steps=12)
        made = self.sample_rgbd(request).rgb
        return torch.cat([clip.video[:, : self.config.discard_frames].float() / 127.5 - 1, made], dim=1)


def stages(config: VoyagerConfig) -> dict[str, VoyagerConfig]:
    """The three stages of training (section 4.4, table 4) of a system of RGB-D without context blocks:
    colours only, colours and depth, and these with context blocks, over depth where it has rows of its own.
    Each starts from the weights of the one before."""
    backbone, token = config.backbone, config.codec.stride[1] * config.backbone.patch[1]
    assert isinstance(backbone, MMDiTConfig) and config.depth != "none"
    codec, gap = config.codec, GAP // token if config.depth == "rows" else None
    if isinstance(codec, PatchCodecConfig):
        codec = replace(codec, image_channels=3)
    led = replace(config, backbone=led_by_context(backbone, gap=gap))
    rgb = replace(config, depth="none", codec=codec, pixels=None)
    return {"rgb": rgb, "rgbd": config, "context": led}


def tiny() -> VoyagerConfig:
    """For tests: a toy of every part, for paths of 5 frames of 32x32."""
    codec = BlockCodecConfig((4, 8, 8), 24, width=8, depth=1)
    backbone = MMDiTConfig(24, 50, width=64, heads=2, patch=(1, 1, 1), axes=(8, 12, 12))
    backbone = replace(backbone, double_blocks=1, single_blocks=1, refiner_blocks=1)
    backbone = replace(backbone, text_dim=16, pooled_dim=0)
    config = VoyagerConfig(codec, backbone, ByteEncoderConfig(width=16, heads=2), predicts="clean")
    config = replace(config, frames=5, size=(80, 32), steps=8, guidance=1.0)
    return stages(config)["context"]


def rooms() -> VoyagerConfig:
    """Paths of 17 frames of 96x128 on two CPU cores, before context blocks: 816 tokens, depth in channels."""
    backbone = MMDiTConfig(128, 258, width=256, heads=4, patch=(1, 1, 1), axes=(16, 24, 24))
    backbone = replace(backbone, double_blocks=1, single_blocks=7, refiner_blocks=1)
    backbone = replace(backbone, text_dim=128, pooled_dim=128)
    text_encoder, codec = ByteEncoderConfig(width=128, pooled_dim=128), PatchCodecConfig(128, 4, widths=())
    config = VoyagerConfig(codec, backbone, text_encoder, depth="channels", coverage="share", headroom=3.0)
    config = replace(config, predicts="clean", frames=17, steps=4, guidance=1.0)
    config = replace(config, focal=(0.5, 0.8), unit=32.0, estimator=PixelFilterConfig(width=32))
    config = replace(config, pixels=PixelFilterConfig(width=32))
    return replace(config, shift=8.0, training_shift=8.0)


def released() -> VoyagerConfig:
    """HunyuanWorld-Voyager as published: paths of 49 frames of 512x768, of which 45 are kept."""
    backbone = replace(hunyuan_13b("latent_concat"), cond_channels=34)
    encoder = HunyuanTextConfig("hf://hunyuanvideo-community/HunyuanVideo-I2V-33ch", 2)
    config = VoyagerConfig(CausalVAEConfig(), backbone, encoder, shift=7.0, steps=50, guidance=6.0)
    config = replace(config, image_mix=0.001, discard_frames=4, headroom=1.1)
    return replace(config, frames=45, size=(1040, 768), fps=24.0)
