"""From the first frame and the codes to the frames that follow.

Shapes: b clips, n transitions, s code slots, v code width, p tokens of a frame, d width, c h w a frame.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from hlrp.laq.blocks import FeedForward, PatchStem, SelfAttention
from hlrp.laq.config import LAQConfig


class TransitionDecoder(nn.Module):
    """Predict the next frame as a correction of the one before it; it starts out as the copy of that frame."""

    def __init__(self, config: LAQConfig) -> None:
        super().__init__()
        spec = config.spec
        self.grid, self.patch_size = config.grid, config.patch_size
        self.stem = PatchStem(3, config.dim, config.patch_size, config.num_tokens)
        self.from_code = nn.Linear(spec.code_dim, config.dim)
        self.slots = nn.Parameter(0.02 * torch.randn(spec.code_seq_len, config.dim))
        self.attention = nn.ModuleList(SelfAttention(config.dim, config.heads) for _ in range(config.decoder_layers))
        self.feed_forward = nn.ModuleList(FeedForward(config.dim) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.dim)
        self.to_pixels = nn.Linear(config.dim, 3 * config.patch_size**2)
        nn.init.zeros_(self.to_pixels.weight)
        nn.init.zeros_(self.to_pixels.bias)

    def forward(
        self, frames: Float[Tensor, "b n c h w"], vectors: Float[Tensor, "b n s v"]
    ) -> Float[Tensor, "b n c h w"]:
        """Predict the successor of each frame (float32 in [0, 1]) under its transition's code vectors."""
        b = frames.shape[0]
        before = rearrange(frames, "b n c h w -> (b n) c h w")
        codes = self.from_code(rearrange(vectors, "b n s v -> (b n) s v")) + self.slots
        tokens = torch.cat([self.stem(2 * before - 1), codes], dim=1)
        for attention, feed_forward in zip(self.attention, self.feed_forward, strict=True):
            tokens = attention(tokens)
            tokens = tokens + feed_forward(tokens)
        change = self.to_pixels(self.norm(tokens[:, : self.stem.position.shape[0]]))
        change = rearrange(
            change, "b (y x) (c i j) -> b c (y i) (x j)", y=self.grid[0], i=self.patch_size, j=self.patch_size
        )
        return rearrange(before + change, "(b n) c h w -> b n c h w", b=b)
