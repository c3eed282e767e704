"""The transformer layers of LAPA's quantizer, with the tensor layouts of its released weights.

The layers follow C-ViViT (Phenaki, arXiv:2210.02399): cosine-similarity attention with a learned relative position
bias, gated feed-forward layers, and position information from a depthwise convolution.

Shapes: u width of one attention head, y x the grid of patches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

_SCALE = 8
"""Factor of the cosine similarities, in place of the usual 1/sqrt(u)."""
_NULL_PAIRS = 2
"""Number of learned pairs of key and value that cross-attention reads in addition to its memory."""


class CosineAttention(nn.Module):
    """Pre-norm multi-head attention over cosine similarities, without its residual.

    Args:
        dim: Width d of the tokens.
        heads: Number of heads.
        head_dim: Width u of one head.
        reads_memory: Cross-attention to a memory and to learned null keys, instead of self-attention.
    """

    def __init__(self, dim: int, heads: int, head_dim: int, *, reads_memory: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.norm_memory = nn.LayerNorm(dim) if reads_memory else None
        self.null_pairs = nn.Parameter(torch.randn(heads, 2 * _NULL_PAIRS, head_dim)) if reads_memory else None
        self.q = nn.Linear(dim, heads * head_dim, bias=False)
        self.kv = nn.Linear(dim, 2 * heads * head_dim, bias=False)
        self.q_scale, self.k_scale = nn.Parameter(torch.ones(head_dim)), nn.Parameter(torch.ones(head_dim))
        self.out = nn.Linear(heads * head_dim, dim, bias=False)

    def forward(
        self,
        tokens: Float[Tensor, "b l d"],
        *,
        memory: Float[Tensor, "b memory d"] | None = None,
        bias: Float[Tensor, "heads l l"] | None = None,
    ) -> Float[Tensor, "b l d"]:
        """Output of the attention for each token, to be added to the token."""
        q = rearrange(self.q(self.norm(tokens)), "b l (heads u) -> b heads l u", heads=self.heads)
        # As in LAPA's code, self-attention takes queries from normalized tokens, but keys and values from unnormalized.
        source = tokens if memory is None or self.norm_memory is None else self.norm_memory(memory)
        k, v = rearrange(self.kv(source), "b l (two heads u) -> two b heads l u", two=2, heads=self.heads)
        if self.null_pairs is not None:
            null_k, null_v = repeat(self.null_pairs, "heads (null two) u -> two b heads null u", two=2, b=len(tokens))
            k, v = torch.cat([null_k, k], dim=2), torch.cat([null_v, v], dim=2)
        q, k = F.normalize(q, dim=-1) * self.q_scale, F.normalize(k, dim=-1) * self.k_scale
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=_SCALE)
        return self.out(rearrange(mixed, "b heads l u -> b l (heads u)"))


class GatedFeedForward(nn.Module):
    """Pre-norm GEGLU perceptron (arXiv:2002.05202), without its residual."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        width = int(4 * (2 / 3) * dim)
        self.norm = nn.LayerNorm(dim)
        self.wide = nn.Linear(dim, 2 * width, bias=False)
        self.out = nn.Linear(width, dim, bias=False)

    def forward(self, tokens: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        """Output of the perceptron for each token, to be added to the token."""
        values, gate = self.wide(self.norm(tokens)).chunk(2, dim=-1)
        return self.out(values * F.gelu(gate))


class PositionConvolution(nn.Conv3d):
    """Depthwise 3x3x3 convolution over (frame, row, column), causal in time, which serves as position embedding."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, kernel_size=3, groups=dim)

    def over(self, tokens: Float[Tensor, "b l d"], video: tuple[int, int, int, int]) -> Float[Tensor, "b l d"]:
        """Convolve tokens after a plain reshape to `video`, which is (clips, t, y, x).

        Tokens laid out as "(b t) (y x) d" become the true video. Tokens laid out as "(b y x) t d", before attention
        over time, are mixed across frames and positions. LAPA's code has this mix-up, and its weights expect it.
        """
        volume = rearrange(tokens.reshape(*video, -1), "b t y x d -> b d t y x")
        volume = self(F.pad(volume, (1, 1, 1, 1, 2, 0)))  # two empty frames before the first: causal in time
        return rearrange(volume, "b d t y x -> b t y x d").reshape(tokens.shape)


class LapaLayer(nn.Module):
    """Position convolution, self-attention, optionally cross-attention, feed-forward layer; each with a residual."""

    def __init__(self, dim: int, heads: int, head_dim: int, *, reads_memory: bool) -> None:
        super().__init__()
        self.position = PositionConvolution(dim)
        self.attention = CosineAttention(dim, heads, head_dim, reads_memory=False)
        self.read = CosineAttention(dim, heads, head_dim, reads_memory=True) if reads_memory else None
        self.feed_forward = GatedFeedForward(dim)

    def forward(
        self,
        tokens: Float[Tensor, "b l d"],
        video: tuple[int, int, int, int],
        memory: Float[Tensor, "b memory d"] | None,
        bias: Float[Tensor, "heads l l"] | None,
    ) -> Float[Tensor, "b l d"]:
        """Apply the layer; see `PositionConvolution.over` for `video`."""
        tokens = tokens + self.position.over(tokens, video)
        tokens = tokens + self.attention(tokens, bias=bias)
        if self.read is not None:
            tokens = tokens + self.read(tokens, memory=memory)
        return tokens + self.feed_forward(tokens)


class LapaTransformer(nn.Module):
    """A stack of `LapaLayer` with a LayerNorm at the end."""

    def __init__(self, dim: int, heads: int, head_dim: int, layers: int, *, reads_memory: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(LapaLayer(dim, heads, head_dim, reads_memory=reads_memory) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        tokens: Float[Tensor, "b l d"],
        video: tuple[int, int, int, int],
        *,
        memory: Float[Tensor, "b memory d"] | None = None,
        bias: Float[Tensor, "heads l l"] | None = None,
    ) -> Float[Tensor, "b l d"]:
        """Apply all layers; see `PositionConvolution.over` for `video`."""
        for layer in self.layers:
            tokens = layer(tokens, video, memory, bias)
        return self.norm(tokens)


class RelativePositionBias(nn.Module):
    """Learned attention bias from the log-spaced distance of two patches (Swin v2, arXiv:2111.09883)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.hidden = nn.ModuleList([nn.Linear(2, dim), nn.Linear(dim, dim)])
        self.to_heads = nn.Linear(dim, heads)

    def forward(self, grid: int) -> Float[Tensor, "heads l l"]:
        """Bias between all pairs of patches of a square grid; patches are in row-major order."""
        weight = self.to_heads.weight
        side = torch.arange(grid, device=weight.device)
        places = torch.cartesian_prod(side, side).to(weight.dtype)
        distance = places[:, None] - places
        values = distance.sign() * distance.abs().log1p()
        for layer in self.hidden:
            values = F.leaky_relu(layer(values), 0.1)
        return rearrange(self.to_heads(values), "l1 l2 heads -> heads l1 l2")
