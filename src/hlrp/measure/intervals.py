"""Bootstrap confidence intervals of held-out metrics, by resampling episodes.

Shapes: x resamples.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_RESAMPLES = 1000
"""Number of bootstrap samples x: 25 of them lie beyond each end of a 95 % interval."""
FEWEST_EPISODES = 6
"""Episodes that an interval takes. Of fewer, the bootstrap's interval is far too narrow: of 2, 3 and 5 episodes with
normally distributed scores, it contains the true mean in 50, 76 and 83 of 100 cases instead of 95."""


def bootstrap_weights(num_episodes: int, *, seed: int = 0) -> Float[Tensor, "x e"]:
    """Bootstrap samples of episodes with replacement (Efron, 1979).

    Episodes are resampled rather than clips, since clips of one episode are similar.

    Returns:
        How often each sample contains each episode.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(num_episodes, (_RESAMPLES, num_episodes), generator=generator)
    return torch.zeros(_RESAMPLES, num_episodes, dtype=torch.float64).scatter_add_(
        1, draws, torch.ones_like(draws, dtype=torch.float64)
    )


def percentile_interval(values: Float[Tensor, " x"]) -> tuple[float, float] | None:
    """2.5 % and 97.5 % quantiles of the bootstrap scores; None if a score is NaN."""
    if values.isnan().any():
        return None
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return low, high
