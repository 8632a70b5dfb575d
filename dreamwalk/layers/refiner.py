"""The token refiner: bidirectional self-attention over the output of a causal language model.

HunyuanVideo, arXiv 2412.03603, section 3.3: a language model's tokens have seen only the tokens before them,
so a few blocks of bidirectional self-attention follow, gated by sigma and the mean of the text embedding.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from dreamwalk.layers.attention import attend
from dreamwalk.layers.modulation import Modulation, SigmaEmbedding
from dreamwalk.layers.text import TextEmbedding


class Projection(nn.Sequential):
    """Two linear layers, `(b, p)` to `(b, d)`."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))


class RefinerBlock(nn.Module):
    """Self-attention and feed-forward, each normalised and gated (zero at the start)."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_feedforward = nn.LayerNorm(width, eps=1e-6)
        self.feedforward = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))
        self.modulation = Modulation(width, parts=2)

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor | None) -> Tensor:
        """`x` `(b, n, d)`, `condition` `(b, 1, d)`, `mask` `(b, 1, 1, n)`."""
        gate_a, gate_f = (gate[:, 0] for gate in self.modulation(condition))
        qkv = self.qkv(self.norm_attention(x))
        q, k, v = rearrange(qkv, "b n (three heads e) -> three b heads n e", three=3, heads=self.heads)
        x = x + gate_a * self.out(rearrange(attend(q, k, v, mask), "b heads n e -> b n (heads e)"))
        return x + gate_f * self.feedforward(self.norm_feedforward(x))


class TokenRefiner(nn.Module):
    """Text embeddings `(b, n, text_dim)` and the clip's sigma `(b,)` to tokens `(b, n, d)`."""

    def __init__(self, text_dim: int, width: int, *, heads: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Linear(text_dim, width)
        self.sigma = SigmaEmbedding(width)
        self.mean = Projection(text_dim, width)
        self.blocks = nn.ModuleList(RefinerBlock(width, heads=heads) for _ in range(depth))

    def forward(self, text: TextEmbedding, sigma: Tensor) -> Tensor:
        """Tokens under the mask come out as anything finite."""
        tokens, mask = text.tokens, text.mask
        count = max(1, tokens.shape[1])
        if mask is None:
            mean = tokens.sum(1) / count
        else:
            mean = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
            mask = (mask | ~mask.any(1, keepdim=True))[:, None, None]
        condition = (self.sigma(sigma) + self.mean(mean.to(tokens.dtype)))[:, None]
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, condition, mask)
        return x
