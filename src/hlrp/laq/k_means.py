"""Clusters of points.

Shapes: i points, z their dimensions, k clusters.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def k_means(
    points: Float[Tensor, "i z"], count: int, generator: torch.Generator, *, rounds: int = 30
) -> Float[Tensor, "k z"]:
    """Centres of `count` clusters of `points`: Lloyd's algorithm (1982) with the initialization of k-means++ (Arthur
    and Vassilvitskii, 2007)."""
    centres = points[torch.randint(len(points), (1,), generator=generator)]
    while len(centres) < count:
        distance = torch.cdist(points, centres).amin(1).square() + 1e-12  # never all 0, even if points repeat
        pick = torch.multinomial(distance, 1, generator=generator)
        centres = torch.cat([centres, points[pick]])
    for _ in range(rounds):
        nearest = torch.cdist(points, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        counts = nearest.bincount(minlength=count)[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
    return centres
