"""A linear reading of what changed, straight from the encoder's vectors.

Shapes: b clips, n transitions, c h w a frame, s code slots, v code width.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from hlrp.laq.config import LAQConfig
from hlrp.training.ranks import mean_over_ranks

SKETCH_SIDE = 16
"""Rows and columns of the sketch."""


class ChangeSketch(nn.Module):
    """Predict a small picture of the change by one linear map, without looking at the frame.

    The decoder may give a vector another meaning in every scene, because it sees the frame too. A map that sees nothing
    but the vector cannot: it keeps directions of the vector tied to directions of motion everywhere. It serves training
    alone and is no part of a checkpoint.
    """

    def __init__(self, config: LAQConfig) -> None:
        super().__init__()
        self.read = nn.Linear(config.spec.code_seq_len * config.spec.code_dim, config.channels * SKETCH_SIDE**2)

    def forward(self, vectors: Float[Tensor, "b n s v"], change: Float[Tensor, "b n c h w"]) -> Float[Tensor, ""]:
        """Squared error of the sketch of `change` (next frame minus this one), over the sketch's mean square."""
        truth = F.adaptive_avg_pool2d(rearrange(change, "b n c h w -> (b n) c h w"), SKETCH_SIDE).flatten(1)
        sketch = self.read(rearrange(vectors, "b n s v -> (b n) (s v)"))
        size = mean_over_ranks(truth.square().mean().detach()).clamp_min(1e-6)
        return (sketch - truth).square().mean() / size
