"""An auxiliary loss of the quantizer: predict a small picture of the change linearly from the encoder's vectors."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from hlrp.laq.config import LAQConfig
from hlrp.laq.lapa.config import LapaConfig
from hlrp.training.ranks import mean_over_ranks

SKETCH_SIDE = 16
"""Rows and columns, in pixels, of the predicted picture of the change."""


class ChangeSketch(nn.Module):
    """Predict a small picture of the change by one linear map of the encoder's vectors, without the frame.

    The decoder also takes the frame, so that it can give the same vector another meaning in every scene. A linear map
    of the vector alone cannot: it ties directions of the vector to directions of motion in all scenes. The map is used
    in training only and is not saved in checkpoints.
    """

    def __init__(self, config: LAQConfig | LapaConfig) -> None:
        super().__init__()
        outputs = 3 * config.num_cameras * SKETCH_SIDE**2
        self.read = nn.Linear(config.spec.code_seq_len * config.spec.code_dim, outputs)

    def forward(self, vectors: Float[Tensor, "b n s v"], change: Float[Tensor, "b n m c h w"]) -> Float[Tensor, ""]:
        """Squared error of the predicted small picture, divided by the mean square of the true one.

        Args:
            vectors: Encoder outputs before quantization.
            change: Next frame minus this frame, pixels in [0, 1].
        """
        truth = F.adaptive_avg_pool2d(rearrange(change, "b n m c h w -> (b n) (m c) h w"), SKETCH_SIDE).flatten(1)
        sketch = self.read(rearrange(vectors, "b n s v -> (b n) (s v)"))
        size = mean_over_ranks(truth.square().mean().detach()).clamp_min(1e-6)
        return (sketch - truth).square().mean() / size
