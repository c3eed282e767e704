"""Latents with zero mean and unit variance: a quantizer that does not care where the encoder is.

Shapes: b batch, s code slots, v width of what is standardized.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hlrp.training.ranks import mean_over_ranks


class BatchStandardization(nn.Module):
    """Batch normalization without an affine map, over the batch of all processes, on any device.

    In evaluation it uses running statistics: plain averages at first, which forget their start, then moving ones.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, *shape: int, momentum: float = 0.2) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, values: Float[Tensor, "b s v"]) -> Float[Tensor, "b s v"]:
        """Zero mean and unit variance in every place."""
        mean, variance = self.mean, self.variance
        if self.training:
            mean = mean_over_ranks(values.mean(0))
            variance = mean_over_ranks((values - mean).square().mean(0))
            self.batches += 1
            weight = self.batches.reciprocal().clamp_min(self.momentum)
            self.mean.lerp_(mean.detach(), weight)
            self.variance.lerp_(variance.detach(), weight)
        return (values - mean) * (variance + 1e-8).rsqrt()

    def replaced_values(self) -> dict[str, Bool[Tensor, ""]]:
        """The count of batches, of which an average over time means nothing."""
        return {"batches": torch.ones_like(self.batches, dtype=torch.bool)}
