"""Standardization of latents to mean 0 and variance 1, so that a quantizer does not depend on the encoder's scale.

Shapes: i values of a slot that are standardized.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hlrp.training.ranks import mean_over_ranks


class BatchStandardization(nn.Module):
    """Batch normalization without an affine map; statistics are computed over the batches of all processes.

    PyTorch's SyncBatchNorm needs GPUs. Evaluation uses running statistics: the plain mean over batches at first, so
    that the initial values have no weight, and a moving average after 1 / `momentum` batches.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor
    """Number of training batches so far."""

    def __init__(self, *shape: int, momentum: float = 0.2) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, values: Float[Tensor, "b s i"]) -> Float[Tensor, "b s i"]:
        """Standardize every element of `values` by its mean and variance over the batch, or by running statistics."""
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
        """Mask of the batch counter, which weight averaging must leave out."""
        return {"batches": torch.ones_like(self.batches, dtype=torch.bool)}
