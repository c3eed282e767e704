"""The decoder of the quantizer: it predicts the change from a frame to the next one, given the frame and its codes.

Shapes: y x the grid of patches, i j rows and columns inside a patch, u width of a frozen vision model's features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from hlrp.laq.blocks import FeedForward, PatchStem, SelfAttention
from hlrp.laq.config import LAQConfig

FLOW_CELLS = 4
"""Flow cells along each side of a patch."""


@dataclass(frozen=True)
class PredictedChange:
    """Predicted change from each frame to the next one; a field is None if it is no target of the decoder."""

    pixels: Float[Tensor, "b n m c h w"] | None
    """Pixels of the next frame minus pixels of this frame."""
    features: Float[Tensor, "b n m u y x"] | None
    """Features of the next frame minus features of this frame, by a frozen vision model."""
    flow: Float[Tensor, "b n m 2 flow_y flow_x"] | None
    """Optical flow to the next frame along x and y, in patches; `FLOW_CELLS` cells along each side of a patch."""


class TransitionDecoder(nn.Module):
    """Transformer over the patches of a frame and the code vectors of its transition, with a linear head per target.

    The heads start at zero, so that an untrained decoder predicts no change, which is a good first guess for video.
    """

    def __init__(self, config: LAQConfig) -> None:
        super().__init__()
        spec = config.spec
        self.grid, self.patch_size, self.num_cameras = config.grid, config.patch_size, config.num_cameras
        self.stem = PatchStem(3, config.dim, config.patch_size, config.num_tokens, config.num_cameras)
        self.from_code = nn.Linear(spec.code_dim, config.dim)
        self.slots = nn.Parameter(0.02 * torch.randn(spec.code_seq_len, config.dim))
        self.attention = nn.ModuleList(SelfAttention(config.dim, config.heads) for _ in range(config.decoder_layers))
        self.feed_forward = nn.ModuleList(FeedForward(config.dim) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.dim)
        widths = {"pixels": 3 * config.patch_size**2, "features": config.feature_dim, "flow": 2 * FLOW_CELLS**2}
        self.heads = nn.ModuleDict({target: _zero_linear(config.dim, widths[target]) for target in config.targets})

    def forward(self, frames: Float[Tensor, "b n m c h w"], vectors: Float[Tensor, "b n s v"]) -> PredictedChange:
        """Predict the change after each frame (float32 in [0, 1]) from the code vectors of its transition."""
        places, _ = self.tokens(frames, vectors)
        b = frames.shape[0]
        tokens = rearrange(places, "(b n) (m y x) d -> b n m y x d", b=b, m=self.num_cameras, y=self.grid[0])
        changes = {target: head(tokens) for target, head in self.heads.items()}
        return PredictedChange(
            pixels=_unpatch(changes["pixels"], self.patch_size) if "pixels" in changes else None,
            features=rearrange(changes["features"], "b n m y x u -> b n m u y x") if "features" in changes else None,
            flow=_unpatch(changes["flow"], FLOW_CELLS) if "flow" in changes else None,
        )

    def tokens(
        self, frames: Float[Tensor, "b n m c h w"], vectors: Float[Tensor, "b n s v"]
    ) -> tuple[Float[Tensor, "b*n l d"], Float[Tensor, "b*n s d"]]:
        """Output tokens of the transformer: one for each patch of a frame, and one for each code slot."""
        before = rearrange(frames, "b n m c h w -> (b n) m c h w")
        codes = self.from_code(rearrange(vectors, "b n s v -> (b n) s v")) + self.slots
        places = self.stem(2 * before - 1)  # pixels in [-1, 1], as in the encoder
        tokens = torch.cat([places, codes], dim=1)
        for attention, feed_forward in zip(self.attention, self.feed_forward, strict=True):
            tokens = attention(tokens)
            tokens = tokens + feed_forward(tokens)
        tokens = self.norm(tokens)
        return tokens[:, : places.shape[1]], tokens[:, places.shape[1] :]


def _unpatch(values: Float[Tensor, "b n m y x _"], side: int) -> Float[Tensor, "b n m c h w"]:
    """Rearrange the outputs of tokens to pictures; a token holds the channels of `side` x `side` cells."""
    return rearrange(values, "b n m y x (c i j) -> b n m c (y i) (x j)", i=side, j=side)


def _zero_linear(width: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(width, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
