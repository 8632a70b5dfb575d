"""Actions as a condition: the vector form of an `ActionSchema` to one vector per latent frame."""

from __future__ import annotations

from torch import Tensor, nn

from dreamwalk.errors import UserError


class ActionEmbedding(nn.Module):
    """Actions of frames `(b, t, a)` to conditions of latent frames `(b, t', d)`.

    Added to the noise level's embedding, they steer by adaLN-zero, which Next-Frame Diffusion found better
    than cross-attention and in-frame tokens (arXiv 2506.01380, table 3). With a codec of this `stride` in
    time a latent frame is given the actions of its frames side by side; what the first one lacks is zero.
    """

    def __init__(self, actions: int, width: int, *, layers: int = 2, stride: int = 1) -> None:
        super().__init__()
        self.size, self.stride = actions, stride
        further = (part for _ in range(layers - 1) for part in (nn.SiLU(), nn.Linear(width, width)))
        self.mlp = nn.Sequential(nn.Linear(stride * actions, width), *further)

    def forward(self, actions: Tensor) -> Tensor:
        if actions.shape[-1] != self.size:
            raise UserError(
                f"these clips have actions of length {actions.shape[-1]} and the system takes {self.size}: "
                f"train one with `--system.actions {actions.shape[-1]}`"
            )
        if self.stride > 1:
            missing = -actions.shape[1] % self.stride
            padded = nn.functional.pad(actions, (0, 0, missing, 0))
            actions = padded.unflatten(1, (-1, self.stride)).flatten(2)
        return self.mlp(actions.to(next(self.mlp.parameters()).dtype))
