"""The config that interactive systems share; each adds how it is trained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from dreamwalk.backbones import FrameBackboneConfig
from dreamwalk.codecs import CodecConfig, ViTCodecConfig
from dreamwalk.errors import UserError
from dreamwalk.memory import MemoryConfig
from dreamwalk.memory.contract import WindowConfig
from dreamwalk.systems.system import SystemConfig, grid_of
from dreamwalk.validation import Count, Positive, Share, Steps
from dreamwalk.world import ActionSchema


@dataclass(frozen=True)
class InteractiveConfig(SystemConfig):
    """The parts of an interactive system, and how it is sampled."""

    codec: CodecConfig
    backbone: FrameBackboneConfig
    actions: Count
    """Length of the action vector."""
    memory: MemoryConfig = field(default_factory=WindowConfig)
    """What is recalled from outside the window."""
    memory_only: bool = False
    """Train the memory alone, which is quick and comes first."""
    action_layers: int = 2
    """Linear layers of the action embedding."""
    steps: Steps = 4
    """Denoising steps a frame."""
    shift: Positive = 3.0
    """Shift of the sigmas of sampling and training towards noise."""
    spacing: Literal["shifted", "ddim"] = "shifted"
    """Sigmas of sampling: evenly spaced and shifted, or those of DDIM, for which VP diffusions are made."""
    history_sigma: Share = 0.02
    """Noise level at which history is shown when sampling."""
    window: int = 16
    """Frames that the cache holds."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights of backbone and action embedding; the codec's are float32."""

    def sized(self, schema: ActionSchema, size: tuple[int, int]) -> Self:
        """The config for data with these actions and frames of `size` (h, w); UserError where none fits."""
        _, h, w = self.codec.stride
        h, w = h * self.backbone.patch, w * self.backbone.patch
        grid = grid_of(size, (h, w))
        grid = grid[0] * self.backbone.patch, grid[1] * self.backbone.patch
        return replace(self, actions=schema.size, backbone=replace(self.backbone, grid=grid))

    def __post_init__(self) -> None:
        codec, backbone = self.codec, self.backbone
        alike: list[tuple[str, Any, Any]] = [("channels", codec.channels, backbone.channels)]
        if isinstance(codec, ViTCodecConfig):
            alike.append(("grid", codec.grid, backbone.grid))
        for what, ours, theirs in alike:
            if ours != theirs:
                raise UserError(f"the codec and the backbone have another {what}, {ours} and {theirs}")
