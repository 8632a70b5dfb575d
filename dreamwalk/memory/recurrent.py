"""A recurrent memory: a state of fixed size, into which every frame is folded.

Block-wise state-space world models (arXiv 2505.20171) scan every block of the picture through time with a
state of its own. This is the smallest such part: gated linear attention (arXiv 2312.06635) over time, a
state `(heads, e, e)` for each token of the picture. With each frame it fades by a learned gate and takes in
what the token shows, as a key times a value; for a new frame it is asked with a query. Keys, queries and
gates know the camera: its pose relative to the first frame of the walk, and the ray of the token. It costs
the same however long the walk is, and nothing says what it forgets.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.backbones.frame_backbone import Recalled
from dreamwalk.clip import Clip, require_past
from dreamwalk.codecs.codec import Codec
from dreamwalk.codecs.rgbd import codec_input
from dreamwalk.errors import UserError, atomic, brief, writing
from dreamwalk.layers.modulation import zero_init
from dreamwalk.memory.contract import (
    CameraState,
    FinishedFrame,
    Memory,
    Recollection,
    TokenSizes,
    Trainee,
    require_poses,
)
from dreamwalk.memory.encodings import UNIT, cell_rays
from dreamwalk.memory.frustum import Cameras
from dreamwalk.memory.kinematics import WalkedMemory
from dreamwalk.schedules.generator import KeyedGenerator

STATE = "state.safetensors"
"""File of all rows in the folder of a session."""
PLACE = 3 + 3 + 3
"""Numbers that tell of a token's camera: where it is, a ray, and where that ends a room away."""


@dataclass(frozen=True)
class RecurrentConfig:
    """Sizes of the state."""

    heads: int = 4
    width: int = 128
    """Of keys, values and queries, over all heads."""

    def build(self, sizes: TokenSizes) -> RecurrentMemory:
        if self.width % self.heads:
            raise UserError(f"a width of {self.width} does not divide by {self.heads} heads")
        return RecurrentMemory(self, sizes)


class RecurrentMemory(WalkedMemory):
    """The weights of the recurrence."""

    def __init__(self, config: RecurrentConfig, sizes: TokenSizes) -> None:
        super().__init__(sizes.actions)
        self.config, self.sizes, width = config, sizes, config.width
        code = sizes.channels * sizes.patch**2
        self.shown = nn.Linear(code, width)
        self.place = nn.Sequential(nn.Linear(PLACE, 64), nn.SiLU(), nn.Linear(64, 2 * width))
        self.write = nn.Linear(2 * width, 2 * width)
        self.fade = nn.Linear(2 * width, config.heads)
        self.read = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), zero_init(nn.Linear(width, sizes.width))
        )
        nn.init.constant_(self.fade.bias, 4.0)  # keeps 98 % of its state with each frame at first

    def begin(self) -> Memory:
        return States(self)

    def open(self, folder: Path, *, rows: int) -> Memory:
        path, device = folder / STATE, self.shown.weight.device
        try:
            tensors = safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"'{path}' cannot be read ({brief(error)}): save the session again") from error
        shapes = {name: part.shape for name, part in tensors.items()}
        if shapes != {"state": self.empty(rows).shape, "origin": (rows, 4, 4)}:
            raise UserError(f"'{path}' holds no state of this system: begin a new session")
        return States(self, tensors["state"].to(device), tensors["origin"].to(device))

    def empty(self, rows: int) -> Tensor:
        """A state that has seen nothing, `(b, n, heads, e, e)`."""
        head = self.config.width // self.config.heads
        shape = rows, self.sizes.grid[0] * self.sizes.grid[1], self.config.heads, head, head
        return torch.zeros(shape, device=self.shown.weight.device)

    def to_inputs(self, found: Recollection, codec: Codec) -> Recalled:
        return Recalled(found.features)

    def recalled_of_clip(
        self, clip: Clip, x: Tensor, generator: KeyedGenerator, *, system: Trainee
    ) -> tuple[Recalled, dict[str, Tensor]]:
        """The frames of the past are folded in, then those of the clip; each recalls what came before it."""
        past, codec = require_past(clip), system.codec
        with torch.no_grad():
            before = codec.encode(codec_input(past, codec.image_channels))
        poses, intrinsics = (
            torch.cat(pair, 1) for pair in zip(require_poses(past), require_poses(clip), strict=True)
        )
        places = self.places(poses, intrinsics, poses[:, 0])
        state, found, first = self.empty(len(x)), [], len(past)
        for i, latents in enumerate(torch.cat([before, x], 1).unbind(1)):
            if i >= first:
                found.append(self.asked(state, places[:, i]))
            state = self.folded(state, latents, places[:, i])
        return Recalled(torch.stack(found, 1)), {}

    def places(self, poses: Tensor, intrinsics: Tensor, origin: Tensor) -> Tensor:
        """What keys and queries know of cameras `(b, t, ..)`, relative to `origin` `(b, 4, 4)`:
        `(b, t, n, 2 d)`."""
        cameras = Cameras(torch.linalg.inv(origin)[:, None] @ poses, intrinsics, self.sizes.pixels)
        rays = cell_rays(cameras, self.sizes.grid) @ cameras.pose[..., :3, :3].mT
        at = (cameras.pose[..., None, :3, 3] / UNIT).expand_as(rays)
        return self.place(torch.cat([at, rays, at + 2 * rays], -1).to(self.shown.weight.dtype))

    def folded(self, state: Tensor, latents: Tensor, places: Tensor) -> Tensor:
        """The state with a frame of latents `(b, c, h, w)` in it."""
        p, heads = self.sizes.patch, self.config.heads
        tokens = rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=p, q=p)
        seen = torch.cat([self.shown(tokens), places.chunk(2, -1)[0]], -1)
        key, value = rearrange(self.write(seen), "b n (two a e) -> two b n a e", two=2, a=heads)
        kept = self.fade(seen).sigmoid()[..., None, None]
        key = nn.functional.normalize(key, dim=-1)
        return kept * state + (1 - kept) * key[..., :, None] * value[..., None, :]

    def asked(self, state: Tensor, places: Tensor) -> Tensor:
        """What it knows for the tokens of a frame, `(b, n, d)`."""
        query = rearrange(places.chunk(2, -1)[1], "b n (a e) -> b n a e", a=self.config.heads)
        found = torch.einsum("bnaij,bnai->bnaj", state.to(query.dtype), query)
        return self.read(found.flatten(2))


class States(Memory):
    """What a session has folded in."""

    def __init__(
        self, model: RecurrentMemory, state: Tensor | None = None, origin: Tensor | None = None
    ) -> None:
        self.model, self.state, self.origin = model, state, origin

    @torch.inference_mode()
    def write(self, frame: FinishedFrame) -> None:
        camera = frame.camera
        if camera is None:
            return
        self.origin = camera.pose if self.origin is None else self.origin
        state = self.model.empty(len(camera.pose)) if self.state is None else self.state
        self.state = self.model.folded(state, frame.latents, self._places(camera))

    @torch.inference_mode()
    def recall(self, camera: CameraState | None, time: int) -> Recollection:
        if camera is None or self.state is None or not self.recalling:
            return Recollection()
        return Recollection(self.model.asked(self.state, self._places(camera))[:, None])

    def _places(self, camera: CameraState) -> Tensor:
        assert self.origin is not None
        return self.model.places(camera.pose[:, None], camera.intrinsics[:, None], self.origin)[:, 0]

    def clone(self) -> States:
        return States(self.model, self.state, self.origin)  # never written in place

    def to(self, device: torch.device | str) -> States:
        state, origin = (None if part is None else part.to(device) for part in (self.state, self.origin))
        return States(self.model, state, origin)

    def save(self, folder: Path) -> None:
        if self.state is not None and self.origin is not None:
            data = safetensors.torch.save({"state": self.state, "origin": self.origin})
            with writing(folder / STATE), atomic(folder / STATE) as partial:
                partial.write_bytes(data)
