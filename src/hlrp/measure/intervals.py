"""Intervals of held-out figures, by resampling episodes.

Shapes: e held-out episodes, r resamples.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_RESAMPLES = 1000
"""Bootstrap draws: the ends of a 95 % interval then rest on 25 draws each."""


def bootstrap_weights(num_episodes: int, *, seed: int = 0) -> Float[Tensor, "r e"]:
    """How often each episode occurs in each of the resamples, drawn with replacement (Efron, 1979).

    Clips of one episode resemble each other, so episodes are drawn, not clips.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(num_episodes, (_RESAMPLES, num_episodes), generator=generator)
    return torch.zeros(_RESAMPLES, num_episodes, dtype=torch.float64).scatter_add_(
        1, draws, torch.ones_like(draws, dtype=torch.float64)
    )


def percentile_interval(values: Float[Tensor, " r"]) -> tuple[float, float] | None:
    """Central 95 % of the resampled scores; None where one is undefined."""
    if values.isnan().any():
        return None
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return low, high
