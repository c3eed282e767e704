"""Transformer layers of the quantizer: attention over space and time, as in C-ViViT (Phenaki, arXiv:2210.02399).

Shapes: u width of one attention head.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

_FEW_TOKENS = 4
"""Longest sequence for which attention on a CPU uses PyTorch's plain kernel; see `_attend`."""


class SelfAttention(nn.Module):
    """Pre-norm multi-head self-attention with a residual."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, tokens: Float[Tensor, "b l d"], *, causal: bool = False) -> Float[Tensor, "b l d"]:
        """Attend among the tokens of each sequence; with `causal`, each token only to itself and earlier tokens."""
        q, k, v = rearrange(
            self.qkv(self.norm(tokens)), "b l (three heads u) -> three b heads l u", three=3, heads=self.heads
        )
        mixed = _attend(q, k, v, causal=causal)
        return tokens + self.out(rearrange(mixed, "b heads l u -> b l (heads u)"))


def _attend(
    q: Float[Tensor, "b heads l u"],
    k: Float[Tensor, "b heads l u"],
    v: Float[Tensor, "b heads l u"],
    *,
    causal: bool,
) -> Float[Tensor, "b heads l u"]:
    """Scaled dot-product attention. For many short sequences, the plain kernel is up to 5 times as fast on two CPU
    threads as PyTorch's default kernel, which has an overhead for each sequence."""
    if q.device.type == "cpu" and q.shape[2] <= _FEW_TOKENS:
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


class CrossAttention(nn.Module):
    """Pre-norm multi-head attention of queries to the tokens of a memory, with a residual."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_queries, self.norm_memory = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, queries: Float[Tensor, "b s d"], memory: Float[Tensor, "b l d"]) -> Float[Tensor, "b s d"]:
        """Add to each query what it attends to in `memory`."""
        q = rearrange(self.q(self.norm_queries(queries)), "b s (heads u) -> b heads s u", heads=self.heads)
        pairs = self.kv(self.norm_memory(memory))
        k, v = rearrange(pairs, "b l (two heads u) -> two b heads l u", two=2, heads=self.heads)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return queries + self.out(rearrange(mixed, "b heads s u -> b s (heads u)"))


class FeedForward(nn.Sequential):
    """Pre-norm two-layer perceptron, without its residual."""

    def __init__(self, dim: int) -> None:
        super().__init__(
            nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim)
        )


class SpaceTimeBlock(nn.Module):
    """Causal attention over time at each patch position, then attention over space in each frame, then an MLP."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.time = SelfAttention(dim, heads)
        self.space = SelfAttention(dim, heads)
        self.feed_forward = FeedForward(dim)

    def forward(self, tokens: Float[Tensor, "b t l d"]) -> Float[Tensor, "b t l d"]:
        """Apply the block; no frame depends on a later frame."""
        b = tokens.shape[0]
        by_place = self.time(rearrange(tokens, "b t l d -> (b l) t d"), causal=True)
        by_frame = self.space(rearrange(by_place, "(b l) t d -> (b t) l d", b=b))
        return rearrange(by_frame + self.feed_forward(by_frame), "(b t) l d -> b t l d", b=b)


class PatchStem(nn.Module):
    """Strided convolutions from pixels to one token per patch, an inductive bias that helps with little data.

    The first convolution has stride 4, each further one stride 2, until one position per patch remains. All cameras
    share the convolutions; each token of each camera has its own position embedding.

    Args:
        channels: Channels of one camera.
        dim: Width d of a token.
        patch_size: Side of a patch, in pixels.
        num_tokens: Tokens of one camera's frame.
        num_cameras: Number of cameras.
    """

    def __init__(self, channels: int, dim: int, patch_size: int, num_tokens: int, num_cameras: int) -> None:
        super().__init__()
        self.num_cameras = num_cameras
        halvings = (patch_size // 4).bit_length() - 1
        widths = [max(dim * 3 // 2 ** (halvings - i) // 2, 32) for i in range(halvings)] + [dim]
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], kernel_size=4, stride=4)]
        for width, following in pairwise(widths):
            layers += [nn.GELU(approximate="tanh"), nn.Conv2d(width, following, kernel_size=4, stride=2, padding=1)]
        self.convolutions = nn.Sequential(*layers)
        self.position = nn.Parameter(0.02 * torch.randn(num_cameras * num_tokens, dim))

    def forward(self, frames: Float[Tensor, "b m c h w"]) -> Float[Tensor, "b l d"]:
        """Embed pictures with values of about [-1, 1]."""
        frames = rearrange(frames, "b m c h w -> (b m) c h w")
        frames = frames.contiguous(memory_format=torch.channels_last)  # convolutions run nearly twice as fast
        tokens = self.convolutions(frames)
        return rearrange(tokens, "(b m) d y x -> b (m y x) d", m=self.num_cameras) + self.position
