"""Keys and values of recalled frames: how a few pixels of another time become something to attend to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamwalk.backbones.frame_backbone import Recalled
from dreamwalk.backbones.memory_blocks import SHARP, token_places, turned
from dreamwalk.layers.modulation import zero_init
from dreamwalk.layers.precision import float32_arithmetic
from dreamwalk.memory import encodings
from dreamwalk.memory.units import RecalledUnits, Targets

if TYPE_CHECKING:
    from dreamwalk.memory.contract import TokenSizes
    from dreamwalk.memory.frame_memory import BankConfig

HIDDEN = 32
"""Width of the networks that tell of places and times: they run for every token and target."""


class MemoryTokens(nn.Module):
    """Keys and values of recalled frames for all memory blocks of a backbone."""

    def __init__(self, config: BankConfig, sizes: TokenSizes) -> None:
        super().__init__()
        self.config, self.sizes, width = config, sizes, sizes.width
        self.grid = sizes.grid[0] * config.split, sizes.grid[1] * config.split
        self.layers, self.head = sizes.depth // config.every, width // sizes.heads
        self.side = sizes.stride // config.split
        self.cells = nn.Linear(sizes.image_channels * self.side**2, width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.keys, self.values = (nn.Linear(width, self.layers * width) for _ in range(2))
        self.norm_keys = nn.Parameter(torch.full((self.layers, 1, 1, self.head), SHARP))
        nn.init.ones_(self.keys.bias)  # alike at first, as queries are
        more = {"projected": encodings.CLOSENESS, "prope": 0, "pluecker": encodings.RAYS}[config.encoding]
        self.told = self._state(encodings.AGES + more)
        self.asked = self._state(encodings.RAYS) if config.encoding == "pluecker" else None

    def _state(self, inputs: int) -> nn.Module:
        out = zero_init(nn.Linear(HIDDEN, self.layers * self.sizes.width))
        return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.SiLU(), out)

    @property
    def blank(self) -> Recalled:
        """For one target for which nothing is recalled."""
        m, sizes = self.config.frames * self.grid[0] * self.grid[1], self.sizes
        keys = self.values.weight.new_zeros(1, 1, self.layers, sizes.heads, m, self.head)
        shape = 1, 1, self.layers, sizes.grid[0] * sizes.grid[1], sizes.width
        states = None if self.asked is None else keys.new_zeros(shape)
        return Recalled(None, None, keys, keys, keys.new_zeros(1, 1, m), states)

    @property
    def placed(self) -> int:
        """Channels of a head that turn with places."""
        return {"projected": self.head, "prope": self.head // 2, "pluecker": 0}[self.config.encoding]

    def plain(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values `(b, k, n, layers * d)` of frames `(b, k, channels, h, w)` alone, that are told
        nothing of where and when."""
        cells = rearrange(frames, "b k c (h p) (w q) -> b k (h w) (c p q)", p=self.side, q=self.side)
        cells = self.cells(cells)
        return self.keys(self.norm(cells)), self.values(cells)

    def forward(self, plain: tuple[Tensor, Tensor], units: RecalledUnits, targets: Targets) -> Recalled:
        """What memory blocks are given for each target of units with those `plain` keys and values."""
        keys, values = (
            rearrange(part, "b k n (l a e) -> b 1 l a (k n) e", l=self.layers, e=self.head) for part in plain
        )
        told, visible, places = self._where(units, targets)
        state = self.told(told.to(values.dtype))
        state = rearrange(state, "b t m (l a e) -> b t l a m e", l=self.layers, e=self.head)
        keys = nn.functional.rms_norm((keys + state).float(), (self.head,), eps=1e-6) * self.norm_keys
        keys = turned(keys, places[:, :, None, None], count=self.placed).to(values.dtype)
        values, states = values.expand_as(keys), None
        if self.config.encoding == "prope":
            moves = encodings.projective(units.cameras, targets.cameras)
            moves = moves.repeat_interleave(self.grid[0] * self.grid[1], 2)
            keys, values = (_moved(part, moves, self.head - self.placed) for part in (keys, values))
        if self.asked is not None:
            rays = nn.functional.normalize(encodings.cell_rays(targets.cameras, self.sizes.grid), dim=-1)
            own = torch.cat([torch.zeros_like(rays), rays], -1)  # a ray through its own camera has no moment
            states = rearrange(self.asked(own.to(values.dtype)), "b t n (l d) -> b t l n d", l=self.layers)
        return Recalled(None, None, keys, values, visible.to(values.dtype), states)

    @float32_arithmetic()
    def _where(self, units: RecalledUnits, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
        """Of every token for every target: what its key is told, whether it is visible, and its place in
        tokens."""
        n, t = self.grid[0] * self.grid[1], targets.time.shape[1]
        each = [part.repeat_interleave(n, -1) for part in (units.time, units.dreamed, units.valid)]
        time, dreamed, valid = each
        age = encodings.ages(targets.time[:, :, None] - time[:, None], dreamed)
        visible = valid[:, None].expand(-1, t, -1)
        if self.config.encoding == "projected":
            points = encodings.cell_points(units.cameras, units.depth).flatten(1, 2)
            size, finer = self.sizes.grid, self.config.split
            found = encodings.landing(points, valid, targets.cameras, size, finer=finer)
            closeness = encodings.closeness(found, units.depth.flatten(1))
            return torch.cat([age, closeness], -1), found.visible, found.place
        own = token_places(self.grid, heads=1, device=age.device)[0] / self.config.split
        places = own.repeat(units.time.shape[1], 1).expand(*age.shape[:3], 2)
        if self.config.encoding == "pluecker":
            rays = encodings.pluecker(units.cameras, targets.cameras, self.grid)
            return torch.cat([age, rays], -1), visible, places
        return age, visible, places


def _moved(x: Tensor, moves: Tensor, count: int) -> Tensor:
    """`x` `(b, t, l, a, m, e)` with its first `count` channels, by fours, moved by `(b, t, m, 4, 4)`."""
    moving, still = x.split([count, x.shape[-1] - count], -1)
    moving = torch.einsum("btmij,btlamgj->btlamgi", moves.to(x.dtype), moving.unflatten(-1, (-1, 4)))
    return torch.cat([moving.flatten(-2), still], -1)
