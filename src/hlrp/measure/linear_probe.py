"""Linear probes: how well ridge regression predicts the robot's actions from latents. This number ranks quantizers.

Probes are fitted on clips of training episodes and scored on clips of held-out episodes.

Shapes: i clips for fitting, j held-out clips, z features, g targets, x resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_RIDGE = (1e-3, 1e-2, 1e-1, 1.0)
"""Candidate strengths of the ridge penalty; a quarter of the fitting clips decides, never the held-out clips."""
_NO_VARIATION = 1e-9
"""Sum of squares below which a target counts as constant."""


@dataclass(frozen=True)
class ProbeScore:
    """Squared errors of a probe on held-out clips, per target."""

    residual: Float[Tensor, "*x g"]
    """Summed squared errors of the probe."""
    total: Float[Tensor, "*x g"]
    """Summed squared errors of a constant guess: the mean of the held-out targets."""

    def per_target(self) -> Float[Tensor, "*x g"]:
        """R² of each target, at most 1; 0 is as good as the mean of the held-out targets. NaN for a constant target."""
        return torch.where(self.total > _NO_VARIATION, 1 - self.residual / self.total.clamp_min(1e-9), torch.nan)

    def pooled(self) -> Float[Tensor, "*x"]:
        """R² of all targets that vary, weighted by their variance on the held-out clips; NaN if none varies.

        A plain average over targets would be dominated by targets that hardly vary, such as those of an idle arm.
        """
        varies = self.total > _NO_VARIATION
        residual, total = (torch.where(varies, values, 0.0).sum(-1) for values in (self.residual, self.total))
        return torch.where(varies.any(-1), 1 - residual / total.clamp_min(1e-9), torch.nan)


@dataclass(frozen=True)
class LinearProbe:
    """A fitted ridge regression on standardized features."""

    feature_mean: Float[Tensor, " z"]
    feature_scale: Float[Tensor, " z"]
    weights: Float[Tensor, "z g"]
    bias: Float[Tensor, " g"]

    def predict(self, features: Float[Tensor, "j z"]) -> Float[Tensor, "j g"]:
        """Predict the targets of new clips."""
        return (features.double() - self.feature_mean) / self.feature_scale @ self.weights + self.bias


def fit_probe(features: Float[Tensor, "i z"], targets: Float[Tensor, "i g"]) -> LinearProbe:
    """Fit a ridge regression; its strength is chosen by the error on a random quarter of these clips.

    The quarter is the same in every call with as many clips. It is not the last quarter, which may come from tasks that
    the other clips do not show: the strength would then be one for unknown tasks.

    Clips with a target that is not finite are left out: their actions are not known.
    """
    known = targets.isfinite().all(1).nonzero()[:, 0]
    known = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(0)).to(known.device)]
    features, targets = features[known].double(), targets[known].double()
    mean, scale = features.mean(0), features.std(0)
    scale = torch.where(scale > 1e-6, scale, 1.0)  # a feature that first varies in held-out clips must not explode
    features = (features - mean) / scale
    split = len(features) * 3 // 4
    inner = _ridge(features[:split], targets[:split])

    def inner_error(strength: float) -> float:
        weights, bias = inner(strength)
        return float((targets[split:] - features[split:] @ weights - bias).square().sum())

    weights, bias = _ridge(features, targets)(min(_RIDGE, key=inner_error))
    return LinearProbe(mean, scale, weights, bias)


def linear_probe(
    fit_features: Float[Tensor, "i z"],
    fit_targets: Float[Tensor, "i g"],
    test_features: Float[Tensor, "j z"],
    test_targets: Float[Tensor, "j g"],
) -> ProbeScore:
    """Fit a probe and score it on held-out clips."""
    probe, every = fit_probe(fit_features, fit_targets), torch.zeros(len(test_targets), dtype=torch.int64)
    return episode_sums(test_targets, probe.predict(test_features), every).score()


def _ridge(
    features: Float[Tensor, "i z"], targets: Float[Tensor, "i g"]
) -> Callable[[float], tuple[Float[Tensor, "z g"], Float[Tensor, " g"]]]:
    """A function from regularization strength to weights and bias; the matrix products are computed only once."""
    mean = targets.mean(0)
    gram, moment = features.T @ features / len(features), features.T @ (targets - mean) / len(features)
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return lambda strength: (torch.linalg.solve(gram + strength * identity, moment), mean)


# ---- How sure a score of a few episodes is ----


@dataclass(frozen=True)
class EpisodeSums:
    """Sums over the clips of each held-out episode, from which the score of any set of episodes can be computed."""

    clips: Float[Tensor, "*x 1"]
    """Number of clips."""
    residual: Float[Tensor, "*x g"]
    """Summed squared errors of the probe."""
    target: Float[Tensor, "*x g"]
    """Summed targets."""
    target_square: Float[Tensor, "*x g"]
    """Summed squares of the targets."""

    def score(self) -> ProbeScore:
        """Score of all episodes together."""
        return self._weighted(self.clips.new_ones(len(self.clips)))

    def resampled(self, weights: Float[Tensor, "x e"]) -> ProbeScore:
        """Scores of x bootstrap samples; `weights` counts how often each episode is in each sample."""
        return self._weighted(weights)

    def _weighted(self, weights: Float[Tensor, "*x e"]) -> ProbeScore:
        clips, residual, target, square = (
            weights @ sums for sums in (self.clips, self.residual, self.target, self.target_square)
        )
        return ProbeScore(residual, (square - target.square() / clips.clamp_min(1)).clamp_min(0))


def episode_sums(
    truth: Float[Tensor, "j g"], predicted: Float[Tensor, "j g"], episode: Int[Tensor, " j"]
) -> EpisodeSums:
    """Sum squared errors and targets over the clips of each episode; `episode` may hold any integers.

    Clips with a target that is not finite are left out, and so are episodes that have no other clips.
    """
    known = truth.isfinite().all(1)
    truth, predicted, episode = truth[known].double(), predicted[known].double(), episode[known]
    truth, error = truth - truth.mean(0), truth - predicted  # centring keeps the difference of sums accurate
    names, row = episode.unique(return_inverse=True)

    def summed(values: Float[Tensor, "j _"]) -> Float[Tensor, "e _"]:
        return values.new_zeros(len(names), values.shape[1]).index_add_(0, row, values)

    ones = truth.new_ones(len(truth), 1)
    return EpisodeSums(summed(ones), summed(error.square()), summed(truth), summed(truth.square()))
