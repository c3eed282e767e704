"""Head that predicts latent vectors from slot features by conditional flow matching; see `hlrp.flow_matching`.

Vectors are standardized by statistics collected in training. `hlrp.latents` explains the letters of all shapes.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hlrp.flow_matching import integrate, path_point, waves
from hlrp.training.ranks import sum_over_ranks_
from hlrp.training.row_draws import RowDraws

_FREQUENCIES = 8
_SMALLEST_STD = 1e-4  # a constant channel would otherwise be divided by zero
_NOISE, _TIME = 0, 1
"""Numbers of the independent random streams of `RowDraws` for noise and time."""


class Standardizer(nn.Module):
    """Running mean and standard deviation, per slot and channel, over the training vectors of all processes."""

    count: Int[Tensor, ""]
    mean: Float[Tensor, "q v"]
    variance: Float[Tensor, "q v"]

    def __init__(self, *, num_slots: int, width: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(num_slots, width))
        self.register_buffer("variance", torch.ones(num_slots, width))

    @torch.no_grad()
    def update(self, vectors: Float[Tensor, "b q v"], keep: Bool[Tensor, " b"]) -> None:
        """Add the vectors of the samples where `keep` is true to the statistics of all processes.

        The result is exact for any sequence of batch sizes (parallel variance of Chan et al.).
        """
        rows = keep[:, None, None]
        new, batch_sum = keep.sum(), torch.where(rows, vectors, 0.0).sum(0)
        sum_over_ranks_(new)
        sum_over_ranks_(batch_sum)
        batch_mean = batch_sum / new.clamp_min(1)
        squares = torch.where(rows, (vectors - batch_mean).square(), 0.0).sum(0)
        sum_over_ranks_(squares)
        total = self.count + new
        away = batch_mean - self.mean
        share = new / total.clamp_min(1)
        variance = (self.variance * self.count + squares) / total.clamp_min(1) + away.square() * share * (1 - share)
        self.variance.copy_(torch.where(total > 0, variance, self.variance))
        self.mean.add_(away * share)
        self.count.add_(new)

    def standardize(self, vectors: Float[Tensor, "b q v"]) -> Float[Tensor, "b q v"]:
        """Scale `vectors` to mean 0 and standard deviation 1."""
        return (vectors - self.mean) / self._std()

    def restore(self, vectors: Float[Tensor, "b q v"]) -> Float[Tensor, "b q v"]:
        """Undo `standardize`: return vectors in the LAQ's own scale."""
        return vectors * self._std() + self.mean

    def replaced_values(self) -> dict[str, Bool[Tensor, "q v"]]:
        """Buffers that averaging of weights has to copy: mean and variance are averages over all data already."""
        everywhere = torch.ones_like(self.mean, dtype=torch.bool)
        return {"mean": everywhere, "variance": everywhere}

    def _std(self) -> Float[Tensor, "q v"]:
        return self.variance.sqrt().clamp_min(_SMALLEST_STD)


class VectorFlowHead(nn.Module):
    """Network for the velocity of one slot's vector given its slot features; all slots share the network.

    Args:
        condition_width: Width d of the slot features.
        num_slots: Slots of one label, q.
        vector_width: Width v of one latent vector.
    """

    def __init__(self, *, condition_width: int, num_slots: int, vector_width: int) -> None:
        super().__init__()
        hidden = 2 * max(condition_width, vector_width)
        self.standardizer = Standardizer(num_slots=num_slots, width=vector_width)
        self.network = nn.Sequential(
            nn.Linear(vector_width + 2 * _FREQUENCIES + condition_width, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, vector_width),
        )

    def velocity(
        self, x: Float[Tensor, "b q v"], time: Float[Tensor, "b q"], condition: Float[Tensor, "b q d"]
    ) -> Float[Tensor, "b q v"]:
        """Velocity, noise - vectors, of standardized vectors `x` at `time` in [0, 1]."""
        rates = math.pi * torch.arange(1, _FREQUENCIES + 1, device=time.device)
        # The network of saved models counts time from noise to vectors: its time is 1 - t, and its velocity is negated.
        return -self.network(torch.cat([x, waves(1 - time, rates), condition], -1))

    def loss(
        self,
        vectors: Float[Tensor, "b q v"],
        condition: Float[Tensor, "b q d"],
        keep: Bool[Tensor, " b"],
        *,
        draws: RowDraws,
    ) -> Float[Tensor, " b"]:
        """Flow-matching loss of each sample; 0 where `keep` is false.

        In training mode the kept vectors enter the statistics first.

        Args:
            vectors: Latent vectors; rows where `keep` is false may hold any value, NaN included.
            condition: Slot features.
            keep: True for samples that count.
            draws: Random numbers for noise and time of each sample.
        """
        vectors = torch.where(keep[:, None, None], vectors, 0.0)
        if self.training:
            self.standardizer.update(vectors, keep)
        target = self.standardizer.standardize(vectors)
        _, q, v = target.shape
        noise, time = draws.normal(q, v, stream=_NOISE), 1 - draws.uniform(q, stream=_TIME)
        predicted = self.velocity(path_point(target, noise, time), time, condition)
        error = (predicted - (noise - target)).square().mean(dim=(1, 2))
        return torch.where(keep, error, 0.0)

    def integrate(
        self, noise: Float[Tensor, "b q v"], condition: Float[Tensor, "b q d"], *, steps: int
    ) -> Float[Tensor, "b q v"]:
        """Latent vectors from standard normal `noise`, in `steps` Euler steps.

        `noise` of zeros, the mean of the distribution, makes the prediction deterministic.
        """

        def velocity(x: Float[Tensor, "b q v"], time: float) -> Float[Tensor, "b q v"]:
            return self.velocity(x, x.new_full(x.shape[:2], time), condition)

        return self.standardizer.restore(integrate(velocity, noise, steps=steps))
