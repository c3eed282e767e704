"""The number that ranks a quantizer: how much of the robot's action a linear map can read from its latents.

Everything is fitted on training episodes and scored on held-out ones; actions are never seen by the quantizer.

Shapes: m clips for fitting, v held-out clips, f features, a action values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_RIDGE = (1e-3, 1e-2, 1e-1, 1.0)
"""Candidate strengths; chosen on a quarter of the fitting clips, never on the held-out ones."""
_NO_VARIATION = 1e-9
"""Sum of squares below which a target counts as constant."""


@dataclass(frozen=True)
class ProbeScore:
    """Squared errors of a probe on held-out clips, per target."""

    residual: Float[Tensor, " a"]
    total: Float[Tensor, " a"]
    """Of predicting the mean of the held-out targets."""

    def per_target(self) -> Float[Tensor, " a"]:
        """R² of each target: 1 is perfect, 0 no better than its held-out mean; NaN where it does not vary."""
        return torch.where(self.total > _NO_VARIATION, 1 - self.residual / self.total.clamp_min(1e-9), torch.nan)

    def pooled(self) -> Float[Tensor, ""]:
        """R² over all targets that vary: a target counts by how much it varies on the held-out clips.

        A plain average would be ruled by targets that hardly move there, such as the idle arm of a robot with two.
        """
        varies = self.total > _NO_VARIATION
        total = torch.where(varies, self.total, 0.0).sum()
        return 1 - torch.where(varies, self.residual, 0.0).sum() / total if varies.any() else total / 0


def linear_probe(
    fit_features: Float[Tensor, "m f"],
    fit_targets: Float[Tensor, "m a"],
    test_features: Float[Tensor, "v f"],
    test_targets: Float[Tensor, "v a"],
) -> ProbeScore:
    """Fit a ridge regression, its strength chosen on fitting clips alone, and score it on held-out clips."""
    fit_features, test_features = fit_features.double(), test_features.double()
    mean, scale = fit_features.mean(0), fit_features.std(0).clamp_min(1e-6)
    fit_features, test_features = (fit_features - mean) / scale, (test_features - mean) / scale
    split = len(fit_features) * 3 // 4
    inner = [
        _score(
            fit_targets[split:],
            _ridge(fit_features[:split], fit_targets[:split], fit_features[split:], strength),
        )
        for strength in _RIDGE
    ]
    best = min(range(len(_RIDGE)), key=lambda i: float(inner[i].residual.sum()))
    return _score(test_targets, _ridge(fit_features, fit_targets, test_features, _RIDGE[best]))


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


def _score(truth: Float[Tensor, "v a"], predicted: Float[Tensor, "v a"]) -> ProbeScore:
    truth = truth.double()
    return ProbeScore(residual=(truth - predicted).square().sum(0), total=(truth - truth.mean(0)).square().sum(0))
