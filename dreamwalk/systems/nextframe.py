"""Next-Frame Diffusion: an action-conditioned world model that dreams one frame at a time, in real time.

Cheng et al., "Playing with Transformer at 30+ FPS via Next-Frame Diffusion" (arXiv 2506.01380). Frames x_1 ..
x_i with actions a_1 .. a_i; a flow-matching transformer learns p(x_i | x_<i, a_<=i), all tokens of a frame in
parallel:

    x_sigma = (1 - sigma) x + sigma eps        minimise |v(x_sigma, sigma, a, history) - (eps - x)|^2

    paper's word                     our word
    timestep t of a frame            sigma, an independent level per frame
    context frames                   history
    noise on context at inference    history_level
    block-causal attention           the default mask of `FrameDiT`
    KV cache                         `RingCache`

Training levels are drawn in one of two ways. `independent`: every frame has its own level, and frames see
their noisy past, as in the paper (Diffusion Forcing, arXiv 2407.01392). `teacher`: every frame appears twice,
once as history at a small level and once as a target at any level, and targets see only the history of frames
before them; twice the tokens, but every target sees what it will see when played. With `self_history`, part
of that history is replaced by the model's own one-step dreams of it, so that it learns to mend its own errors
(parallel scheduled sampling, arXiv 1906.04331; the self-rollout of LIVE pursues the same end).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dreamwalk.backbones.framedit import FrameDiT, FrameDiTConfig, published
from dreamwalk.clip import Clip
from dreamwalk.codecs import CodecConfig, build_codec
from dreamwalk.codecs.frame import kl16
from dreamwalk.codecs.patch import PatchCodecConfig
from dreamwalk.conditions.actions import ActionEmbedding
from dreamwalk.layers.attention import frame_mask
from dreamwalk.rollout.denoise import EagerStep, Session, Step, commit_frame, denoise_frame
from dreamwalk.rollout.dream import Decode, Dream, Walkable
from dreamwalk.rollout.onnx import OnnxDecoder, OnnxStep
from dreamwalk.schedules import flow
from dreamwalk.schedules.draws import Draws


@dataclass(frozen=True)
class NextFrameConfig:
    """The parts of the system, how it is trained, and how it is played."""

    codec: CodecConfig
    backbone: FrameDiTConfig
    actions: int
    """Length of the action vector."""
    levels: Literal["independent", "teacher"] = "independent"
    shift: float = 3.0
    """How far training levels and sampling grid are moved towards noise."""
    pure: float = 0.0
    """Share of targets at pure noise, where every frame starts when played."""
    history_max: float = 0.1
    """Largest level at which history is shown (`teacher`)."""
    self_history: float = 0.0
    """Share of history frames replaced by the model's own dreams of them (`teacher`)."""
    self_rounds: int = 1
    """How often these dreams are dreamt on the history of the round before: the depth of errors seen."""
    weight_floor: float = 0.3
    """Below this level a target's weight stops growing."""
    steps: int = 4
    """Denoising passes a frame, when played."""
    history_level: float = 0.02
    """Level at which history is shown, when played."""
    window: int = 16
    """Frames that the cache remembers, when played."""


class NextFrame(nn.Module):
    """A frozen codec, an action embedding and a Frame DiT."""

    name = "nextframe"
    about: dict[str, Any] | None = None
    """Metadata of the file that the weights came from."""
    walkable: Walkable | None = None
    """Actions, starts and pace, when the weights came from a file that has them."""

    def __init__(self, config: NextFrameConfig) -> None:
        super().__init__()
        self.config = config
        self.codec = build_codec(config.codec).requires_grad_(False)
        self.actions = ActionEmbedding(config.actions, config.backbone.width)
        self.backbone = FrameDiT(config.backbone)
        self._engine: tuple[Step, Decode] | None = None

    @property
    def blocks(self) -> nn.ModuleList:
        """What is sharded, compiled and checkpointed."""
        return self.backbone.blocks

    def prepare(self, clips: Callable[[], Clip]) -> None:
        """Nothing is computed from data before the first step: the codec arrives trained."""

    def suit(self, actions: int, size: tuple[int, int]) -> None:
        """ValueError unless data with so many actions and frames of `size` (h, w) fit this system."""
        _, h, w = self.codec.stride
        grid = size[0] // h, size[1] // w
        if actions != self.config.actions:
            mend = f"add `--system.actions {actions}`"
            raise ValueError(f"the data have {actions} actions, not {self.config.actions}: {mend}")
        if grid != self.config.backbone.grid or grid != (size[0] / h, size[1] / w):
            flag = f"--system.backbone.grid {grid[0]} {grid[1]}"
            frames = f"frames of {size[0]}x{size[1]}"
            raise ValueError(f"{frames} do not fit a grid of {self.config.backbone.grid}: add `{flag}`")

    def encode(self, video: Tensor) -> Tensor:
        """uint8 video `(b, t, 3, h, w)` to latents `(b, t, c, h, w)`; ValueError for another size."""
        (rows, columns), (_, down, across) = self.config.backbone.grid, self.codec.stride
        if video.shape[-2:] != (rows * down, columns * across):
            size, wanted = f"{video.shape[-2]}x{video.shape[-1]}", f"{rows * down}x{columns * across}"
            raise ValueError(f"these frames are {size} and the system is for {wanted}: collect that size")
        with torch.no_grad():
            return self.codec.encode(video.float() / 127.5 - 1)

    def loss(self, clip: Clip, draws: Draws) -> dict[str, Tensor]:
        x, conditions = self.encode(clip.video), self.actions(clip.actions)
        return (
            self.independent(x, conditions, draws)
            if self.config.levels == "independent"
            else self.teacher(x, conditions, draws)
        )

    def independent(self, x: Tensor, conditions: Tensor, draws: Draws) -> dict[str, Tensor]:
        """All frames noisy, each at its own level, each seeing the noisy past."""
        sigma = self.draw_levels(x.shape[1], draws)
        noisy = flow.perturb(x, draws.normal(*x.shape[1:]), sigma)
        return self.compare(x, noisy, self.backbone(noisy, sigma, conditions), sigma)

    def teacher(self, x: Tensor, conditions: Tensor, draws: Draws) -> dict[str, Tensor]:
        """Frames 0 .. t-2 as history, frames 1 .. t-1 as targets, in one pass."""
        history, targets, frames = x[:, :-1], x[:, 1:], x.shape[1] - 1
        shown_at = (self.config.history_max * draws.uniform(1)).expand(-1, frames)
        sigma = self.draw_levels(frames, draws)
        eps_history, eps = draws.normal(*history.shape[1:]), draws.normal(*targets.shape[1:])
        pair = torch.cat([conditions[:, :-1], conditions[:, 1:]], dim=1)
        if self.config.self_history:
            own = flow.spread(draws.uniform(frames) < self.config.self_history, history)
            history = self.dreamt_history(history, own, eps, shown_at, pair, draws)
        noisy = flow.perturb(targets, eps, sigma)
        v = self.paired(flow.perturb(history, eps_history, shown_at), noisy, shown_at, sigma, pair)
        return self.compare(targets, noisy, v, sigma)

    @torch.no_grad()
    def dreamt_history(
        self, history: Tensor, own: Tensor, eps: Tensor, shown_at: Tensor, conditions: Tensor, draws: Draws
    ) -> Tensor:
        """History whose `own` frames are one-step dreams, all frames at once, round after round."""
        pure, mixed = torch.ones_like(shown_at), history
        for _ in range(self.config.self_rounds):
            shown = flow.perturb(mixed, draws.normal(*history.shape[1:]), shown_at)
            v = self.paired(shown, eps, shown_at, pure, conditions)
            dreamt = torch.cat([history[:, :1], flow.clean(eps, v, pure)[:, :-1]], dim=1)
            mixed = torch.where(own, dreamt, history)
        return mixed

    def paired(
        self, shown: Tensor, noisy: Tensor, shown_at: Tensor, sigma: Tensor, conditions: Tensor
    ) -> Tensor:
        """Velocity of the targets: target i sees history 0 .. i and itself, history sees history."""
        t = shown.shape[1]
        past = torch.ones(t, t, dtype=torch.bool, device=shown.device).tril()
        itself = torch.eye(t, dtype=torch.bool, device=shown.device)
        visible = torch.cat([torch.cat([past, torch.zeros_like(past)], 1), torch.cat([past, itself], 1)], 0)
        times = torch.arange(t, device=shown.device)
        v = self.backbone(
            torch.cat([shown, noisy], 1), torch.cat([shown_at, sigma], 1), conditions,
            times=torch.cat([times, times + 1]), mask=frame_mask(visible, tokens=self.config.backbone.tokens),
        )  # fmt: skip
        return v[:, t:]

    def draw_levels(self, frames: int, draws: Draws) -> Tensor:
        """Independent levels `(b, frames)`: logit-normal, shifted towards noise, a share pure noise."""
        sigma = flow.shift(flow.logit_normal(draws.normal(frames)), self.config.shift)
        return torch.where(draws.uniform(frames) < self.config.pure, torch.ones_like(sigma), sigma)

    def compare(self, x: Tensor, noisy: Tensor, v: Tensor, sigma: Tensor) -> dict[str, Tensor]:
        error = self.codec.loudness * (flow.clean(noisy, v, sigma) - x).square()
        error = error.mean(dim=(2, 3, 4))
        weight = flow.snr_weight(sigma, floor=self.config.weight_floor)
        return {"loss": (weight * error).mean(), "error": error.mean().detach()}

    def step(self) -> Step:
        """The pass that sessions of this system run, in plain PyTorch."""
        return EagerStep(self.actions, self.backbone)

    @torch.inference_mode()
    def begin(self, start: Clip, *, seed: int = 0, step: Step | None = None) -> Session:
        """A session whose history is the batched clip `start` (one frame is enough)."""
        step, config = step or self.step(), self.config
        latents = self.encode(start.video)
        cache = self.backbone.cache(config.window, batch=latents.shape[0])
        shape = (latents.shape[2], latents.shape[3], latents.shape[4])
        session = Session(cache, seed, config.steps, config.history_level, config.shift, shape)
        for i in range(latents.shape[1]):
            commit_frame(step, session, latents[:, i : i + 1], start.actions[:, i : i + 1])
        return session

    @torch.inference_mode()
    def advance(
        self,
        session: Session,
        action: Tensor,
        *,
        step: Step | None = None,
        timings: dict[str, float] | None = None,
    ) -> Tensor:
        """Latents `(b, 1, c, h, w)` of the next frame, which `action` `(b, a)` leads into."""
        return denoise_frame(step or self.step(), session, action[:, None], timings=timings)

    def world(self, *, seed: int | None = None) -> Dream:
        """A dream to walk in, a `gymnasium.Env`; on a CPU through ONNX Runtime. ValueError without starts."""
        if self.walkable is None:
            raise ValueError(
                "this system has random weights: open some with `dreamwalk.load` to walk in its dream"
            )
        device = next(self.parameters()).device
        if self._engine is None:
            self._engine = self._engines(device)
        step, decode = self._engine
        world = Dream(self, self.walkable, step=step, decode=decode, device=device)
        world.reset(seed=seed)
        return world

    def _engines(self, device: torch.device) -> tuple[Step, Decode]:
        """The pass and the decoder, made once and shared by all worlds of this system."""
        if device.type == "cuda":
            return EagerStep(self.actions, self.backbone).compile(), torch.compile(self.codec.decode)
        config = self.config
        step = OnnxStep(self.actions, self.backbone, actions=config.actions, window=config.window)
        return step, OnnxDecoder(self.codec, (config.backbone.channels, *config.backbone.grid))

    @torch.inference_mode()
    def preview(self, clip: Clip) -> Tensor:
        """The dream of `clip` from its first frame under its actions, in [-1, 1] `(b, t, 3, h, w)`."""
        first = Clip(video=clip.video[:, :1], actions=clip.actions[:, :1])
        session, latents = self.begin(first), [self.encode(clip.video[:, :1])]
        latents += [self.advance(session, clip.actions[:, i]) for i in range(1, len(clip))]
        return self.codec.decode(torch.cat(latents, 1)).clamp(-1, 1)


def tiny() -> NextFrameConfig:
    """For tests: 32x32 frames, learns a clip by heart in seconds."""
    codec = PatchCodecConfig(channels=16, patch=8, widths=(16, 16))
    backbone = FrameDiTConfig(
        channels=16,
        grid=(4, 4),
        width=64,
        depth=2,
        heads=2,
        feedforward_multiple=32,
        qk_norm=True,
        predicts="clean",
    )
    return NextFrameConfig(
        codec=codec, backbone=backbone, actions=7, levels="teacher", pure=0.3, steps=2, window=8
    )


def doom() -> NextFrameConfig:
    """The shipped dream: 96x128 frames, 48 tokens a frame, real time on two CPU cores."""
    backbone = FrameDiTConfig(
        channels=64,
        grid=(6, 8),
        width=256,
        depth=6,
        heads=4,
        feedforward_multiple=64,
        qk_norm=True,
        predicts="clean",
    )
    return NextFrameConfig(
        codec=PatchCodecConfig(channels=64), backbone=backbone, actions=7,
        levels="teacher", pure=0.75, self_history=0.6, steps=1, window=7,
    )  # fmt: skip


def released(size: Literal["130M", "310M", "774M"]) -> NextFrameConfig:
    """The paper's three sizes on 224x384 frames through KL-16: 25 actions, 18 steps, 32 frames of history."""
    return NextFrameConfig(codec=kl16(), backbone=published(size), actions=25, steps=18, window=32)
