"""The contract of memories: what a session recalls from outside its window, and where its camera stands.

A memory has two halves. `MemoryModel` is the learnt one, a part of the system and of its weight file;
`Memory` is what one session has stored with it, and is saved, copied and moved with the session. A memory
recalls in these forms:

    features     added to the tokens of the frame that is denoised                      NeuralMap
    rendering    RGB-D of what is known from the camera, coded and put beside them      PointCloud
    frames       near-zero columns of the plan, attended like history
    units        frames with camera and time, for memory blocks (WorldMem, arXiv 2504.12369)    BankMemory
                 or for a memory part of the backbone, which may read the window anew    PosedBankMemory

`WindowConfig` builds the memory of a system that has none: all that it knows is the history in its cache.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from dreamwalk.backbones.frame_backbone import FrameSizes, Recalled
from dreamwalk.backbones.memory_blocks import MemoryBlocksConfig
from dreamwalk.clip import Clip, FittingData
from dreamwalk.codecs.codec import Codec
from dreamwalk.errors import UserError
from dreamwalk.memory.splatting import Rendering
from dreamwalk.memory.units import KeptTokens, RecalledUnits, Targets
from dreamwalk.schedules.generator import KeyedGenerator


@dataclass(frozen=True)
class CameraState:
    """Where the camera of every session of a batch stands, and what led there."""

    pose: Tensor
    """`world_from_camera` `(b, 4, 4)`."""
    displacement: Tensor
    """Of the last step, `(b, 3)` in world units."""
    action: Tensor
    """The last action, `(b, a)`."""
    intrinsics: Tensor
    """`(b, 3, 3)` in pixels."""

    @classmethod
    def of_clip(cls, clip: Clip, index: int) -> CameraState | None:
        """The camera of frame `index` of a batched clip; None for clips without poses."""
        if clip.world_from_camera is None or clip.intrinsics is None:
            return None
        poses = clip.world_from_camera
        displacement = poses[:, index, :3, 3] - poses[:, max(index - 1, 0), :3, 3]
        pose, intrinsics = poses[:, index].float(), clip.intrinsics[:, index].float()
        return cls(pose, displacement.float(), clip.actions[:, index], intrinsics)

    def to(self, device: torch.device | str) -> CameraState:
        return CameraState(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True)
class FinishedFrame:
    """A frame to be remembered."""

    latents: Tensor
    """`(b, c, h, w)`."""
    action: Tensor
    """That led into it, `(b, a)`."""
    camera: CameraState | None
    time: int
    """Index of the frame since the session began."""
    rgbd: Tensor | None = None
    """As it was shown, with its depth (`codecs.rgbd`), `(b, 4, h, w)`; for memories that keep pixels."""
    dreamed: bool = True
    """Whether it was made by the system, and not given."""


@dataclass(frozen=True)
class RecalledFrames:
    """Frames that every denoising pass sees beside the history."""

    latents: Tensor
    """`(b, k, c, h, w)`."""
    actions: Tensor
    """`(b, k, a)`."""
    times: tuple[int, ...]
    """Their frame indices, rising."""
    sigma: float = 0.0
    """Noise level at which they are shown."""
    poses: Tensor | None = None
    """Of their cameras, `world_from_camera` `(b, k, 4, 4)`, where known."""

    def before(self, first: int) -> RecalledFrames | None:
        """Those before frame `first`, where the window begins; None where none are left."""
        kept = [index for index, time in enumerate(self.times) if time < first]
        if not kept:
            return None
        times = tuple(self.times[index] for index in kept)
        poses = None if self.poses is None else self.poses[:, kept]
        return RecalledFrames(self.latents[:, kept], self.actions[:, kept], times, self.sigma, poses)


@dataclass(frozen=True)
class Recollection:
    """What a memory recalls for one frame."""

    features: Tensor | None = None
    """Added to its tokens, `(b, 1, n, d)`."""
    frames: RecalledFrames | None = None
    rendering: Rendering | None = None
    """The frame as the memory would draw it."""
    changed: Tensor | None = None
    """Which rows an action has just changed something in, bool `(b,)`."""
    units: tuple[RecalledUnits, Targets] | None = None
    """Frames that memory blocks attend to, and the frame for which they are recalled."""
    window: RecalledFrames | None = None
    """The window before it, where the backbone is to read that anew beside them."""
    kept: KeptTokens | None = None
    """Of those frames, where a session keeps some."""


class Trainee(Protocol):
    """What a memory model asks of the system that it is trained with."""

    @property
    def codec(self) -> Codec: ...

    def error(self, x: Tensor, prediction: Tensor) -> Tensor:
        """Compares latents `(b, t, c, h, w)` frame by frame, `(b, t)`."""

    def predicted(
        self, clip: Clip, x: Tensor, sigma: Tensor, *, recalled: Recalled, generator: KeyedGenerator
    ) -> Tensor:
        """What the backbone makes of latents `x` at noise levels `sigma` `(b, t)`."""


class Memory(Protocol):
    """What one session has stored. Bounded: `write` forgets what exceeds the budget."""

    recalling: bool = True
    """Whether it tells what it was shown. It keeps that in any case, and tells what the weights know."""

    def write(self, frame: FinishedFrame) -> None:
        """Remember a finished frame."""

    def recall(self, camera: CameraState | None, time: int) -> Recollection:
        """What is known for the frame `time` seen from `camera`."""

    def clone(self) -> Self:
        """A snapshot that later writes leave alone."""

    def to(self, device: torch.device | str) -> Self: ...

    def save(self, folder: Path) -> None:
        """Write what is stored into files of its own, to be opened by `MemoryModel.open`."""

    def __deepcopy__(self, copied: dict[int, object]) -> Self:
        # Copies of a session share the weights.
        return self.clone()


@dataclass(frozen=True)
class TokenSizes:
    """Sizes that a memory shares with its system."""

    grid: tuple[int, int]
    """Rows and columns of tokens."""
    stride: int
    """Pixels from one token to the next."""
    channels: int
    """Of the latents."""
    patch: int
    """Side of a token in latent pixels."""
    width: int
    """Of a token."""
    actions: int
    """Length of the action vector."""
    depth: int
    """Blocks of the backbone."""
    heads: int
    window: int
    """Frames of history that it sees in any case."""
    image_channels: int
    """Of frames: 3, or 4 with depth."""

    @classmethod
    def of(cls, backbone: FrameSizes, codec: Codec, *, actions: int, window: int) -> TokenSizes:
        """Of a backbone behind a codec."""
        grid, patch, stride = backbone.token_grid, backbone.patch, codec.stride[2]
        rest = backbone.width, actions, backbone.depth, backbone.heads, window, codec.image_channels
        return cls(grid, stride * patch, backbone.channels, patch, *rest)

    @property
    def latent(self) -> tuple[int, int, int]:
        """Channels, rows and columns of a latent frame."""
        return self.channels, self.grid[0] * self.patch, self.grid[1] * self.patch

    @property
    def pixels(self) -> tuple[int, int]:
        """Rows and columns of a frame."""
        return self.grid[0] * self.stride, self.grid[1] * self.stride


class MemoryModel(nn.Module):
    """The learnt half; this one recalls nothing and has no weights."""

    recalls_frames = False
    """Whether recollections hold frames: the passes then read more than one ring, which ONNX graphs do
    not."""
    one_by_one = False
    """Whether what is recalled is seen by one frame at a time: then there is no other schedule."""
    one_level = False
    """Whether it knows the level that it was trained on and no other."""
    memory_blocks: MemoryBlocksConfig | None = None
    """Those that its backbone needs."""
    guidance = 1.0
    """Scale of guidance over recalled frames when sampling: above 1, what they say is done more than is
    likely."""
    keeps_pixels = False
    """Whether it is to be given frames as RGB-D."""

    @property
    def blank(self) -> Recalled:
        """What memory blocks are given for one frame of one session when nothing is recalled."""
        return Recalled()

    def begin(self) -> Memory:
        """The memory of a new session."""
        return NoStore(self)

    def show(self, memory: Memory, clip: Clip, latents: Tensor) -> None:
        """Let `memory` keep a batched clip of one true frame that is not of its session's history, and has
        these `latents` `(b, 1, c, h, w)`."""

    def open(self, folder: Path, *, rows: int) -> Memory:
        """What a memory of so many rows saved; UserError for files that are broken or missing."""
        return self.begin()

    def recall(self, camera: CameraState | None, time: int) -> Recollection:
        """What the weights alone know for the frame `time` seen from `camera`."""
        return Recollection()

    def to_inputs(self, found: Recollection, codec: Codec) -> Recalled:
        """A recollection as a backbone takes it."""
        return Recalled(found.features)

    def refine(self, rgbd: Tensor, found: Recollection, action: Tensor) -> Tensor:
        """A decoded frame `(b, 4, h, w)`, into which `action` `(b, a)` led, with what the memory knows
        better."""
        return rgbd

    def picture_depth(self, video: Tensor) -> Tensor | None:
        """Depth `(b, t, h, w)` in world units of frames `(b, t, 3, h, w)` in [-1, 1] that come without; None
        where that is not modelled."""
        return None

    def next_camera(self, camera: CameraState | None, action: Tensor, memory: Memory) -> CameraState | None:
        """Where `action` `(b, a)` leads the camera through what `memory` holds; None where that is not
        modelled."""
        return None

    def fit_from_data(self, data: FittingData) -> None:
        """Set what is fitted before training and not learnt along."""

    def recalled_of_clip(
        self, clip: Clip, x: Tensor, generator: KeyedGenerator, *, system: Trainee
    ) -> tuple[Recalled, dict[str, Tensor]]:
        """For training: what is recalled for all frames of a clip with latents `x`, and terms of the loss."""
        return Recalled(), {}


class NoStore(Memory):
    """Of sessions whose memory model keeps all that it knows in its weights: nothing is written."""

    def __init__(self, model: MemoryModel) -> None:
        self.model = model

    def write(self, frame: FinishedFrame) -> None:
        pass

    def recall(self, camera: CameraState | None, time: int) -> Recollection:
        return self.model.recall(camera, time)

    def clone(self) -> Self:
        return self

    def to(self, device: torch.device | str) -> Self:
        return self

    def save(self, folder: Path) -> None:
        pass


@dataclass(frozen=True)
class WindowConfig:
    """No memory: what the window of history does not hold is forgotten."""

    def build(self, sizes: TokenSizes) -> MemoryModel:
        return MemoryModel()


def require_poses(clip: Clip) -> tuple[Tensor, Tensor]:
    """Poses and intrinsics of a batched clip; UserError for clips without."""
    if clip.world_from_camera is None or clip.intrinsics is None:
        raise UserError(
            "these data have no poses, which a memory of places needs: take one without, for example "
            "`nextframe.game`"
        )
    return clip.world_from_camera, clip.intrinsics
