"""Actions as a condition: the vector form of an `ActionSchema` to one vector per frame."""

from __future__ import annotations

from torch import Tensor, nn

from dreamwalk.errors import UserError


class ActionEmbedding(nn.Module):
    """`(b, t, a)` to `(b, t, d)`. Added to the noise level's embedding, it steers by adaLN-zero, which
    Next-Frame Diffusion found better than cross-attention and in-frame tokens (arXiv 2506.01380, table 3)."""

    def __init__(self, actions: int, width: int, *, layers: int = 2) -> None:
        super().__init__()
        self.size = actions
        further = (part for _ in range(layers - 1) for part in (nn.SiLU(), nn.Linear(width, width)))
        self.mlp = nn.Sequential(nn.Linear(actions, width), *further)

    def forward(self, actions: Tensor) -> Tensor:
        if actions.shape[-1] != self.size:
            raise UserError(
                f"these clips have actions of length {actions.shape[-1]} and the system takes {self.size}: "
                f"train one with `--system.actions {actions.shape[-1]}`"
            )
        return self.mlp(actions.to(next(self.mlp.parameters()).dtype))
