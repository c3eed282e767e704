"""The number that ranks a quantizer: how much of the robot's action a linear map can read from its latents.

Everything is fitted on training episodes and scored on held-out ones; actions are never seen by the quantizer.

Shapes: m clips for fitting, v held-out clips, f features, a action values.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_RIDGE = (1e-3, 1e-2, 1e-1, 1.0)
"""Candidate strengths; chosen on a quarter of the fitting clips, never on the held-out ones."""


def linear_probe_r2(
    fit_features: Float[Tensor, "m f"],
    fit_targets: Float[Tensor, "m a"],
    test_features: Float[Tensor, "v f"],
    test_targets: Float[Tensor, "v a"],
) -> Float[Tensor, " a"]:
    """R² of a ridge regression per target dimension on held-out clips.

    1 is perfect, 0 no better than the mean of the held-out targets, negative is worse than it.

    Returns:
        R² per dimension; NaN where a held-out target does not vary.
    """
    fit_features, test_features = fit_features.double(), test_features.double()
    mean, scale = fit_features.mean(0), fit_features.std(0).clamp_min(1e-6)
    fit_features, test_features = (fit_features - mean) / scale, (test_features - mean) / scale
    split = len(fit_features) * 3 // 4
    inner = [
        _r2(
            fit_targets[split:],
            _ridge(fit_features[:split], fit_targets[:split], fit_features[split:], strength),
        )
        for strength in _RIDGE
    ]
    best = max(range(len(_RIDGE)), key=lambda i: float(inner[i].nanmean()))
    return _r2(test_targets, _ridge(fit_features, fit_targets, test_features, _RIDGE[best]))


def _ridge(
    features: Float[Tensor, "m f"],
    targets: Float[Tensor, "m a"],
    queries: Float[Tensor, "v f"],
    strength: float,
) -> Float[Tensor, "v a"]:
    mean = targets.double().mean(0)
    gram = features.T @ features / len(features)
    gram += strength * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return queries @ torch.linalg.solve(gram, features.T @ (targets.double() - mean) / len(features)) + mean


def _r2(truth: Float[Tensor, "v a"], predicted: Float[Tensor, "v a"]) -> Float[Tensor, " a"]:
    truth = truth.double()
    total = (truth - truth.mean(0)).square().sum(0)
    residual = (truth - predicted).square().sum(0)
    return torch.where(total > 1e-9, 1 - residual / total.clamp_min(1e-9), torch.nan)
