"""Confidence of predicted actions: probability that an action is right within a tolerance, from the models' spread.

The probability is a logistic function of the logarithm of the spread (Platt scaling), fitted on actions that are known
but were held out of training. The same held-out actions show how well the probabilities are calibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression

BINS = 10
"""Bins of equal width between confidence 0 and 1."""
_SMALLEST_SPREAD = 1e-4


@dataclass(frozen=True)
class Confidence:
    """Logistic function from the logarithm of the spread to the probability that an action is right."""

    slope: float
    intercept: float

    @classmethod
    def fit(cls, spread: Float[np.ndarray, " f"], right: Bool[np.ndarray, " f"]) -> Confidence:
        """Fit the function on actions of which it is known whether they are right."""
        share = float(np.clip(right.mean(), 1 / (len(right) + 2), 1 - 1 / (len(right) + 2)))
        if right.all() or not right.any():  # a single class: a constant probability
            return cls(0.0, float(np.log(share / (1 - share))))
        model = LogisticRegression().fit(_feature(spread)[:, None], right)
        return cls(float(model.coef_[0, 0]), float(model.intercept_[0]))

    def __call__(self, spread: Float[np.ndarray, " f"]) -> Float[np.ndarray, " f"]:
        """Probability that an action whose predictions have this spread is right."""
        return 1 / (1 + np.exp(-(self.slope * _feature(spread) + self.intercept)))


def _feature(spread: Float[np.ndarray, " f"]) -> Float[np.ndarray, " f"]:
    return np.log(np.maximum(spread, _SMALLEST_SPREAD))


@dataclass(frozen=True)
class Calibration:
    """Confidence beside the share of right actions, in bins of the confidence."""

    confidence: tuple[float, ...]
    """Mean confidence of every bin that is not empty."""
    right: tuple[float, ...]
    """Share of right actions of these bins."""
    frames: tuple[int, ...]
    """Frames of these bins."""

    @classmethod
    def of(cls, confidence: Float[np.ndarray, " f"], right: Bool[np.ndarray, " f"]) -> Calibration:
        """Calibration of `confidence` on actions of which it is known whether they are right."""
        place = np.minimum((confidence * BINS).astype(int), BINS - 1)
        bins = np.unique(place)
        return cls(
            tuple(float(confidence[place == number].mean()) for number in bins),
            tuple(float(right[place == number].mean()) for number in bins),
            tuple(int((place == number).sum()) for number in bins),
        )

    @property
    def error(self) -> float:
        """Expected calibration error (arXiv:1706.04599): mean distance of confidence and share right, over frames."""
        gaps = np.abs(np.array(self.confidence) - np.array(self.right))
        return float(np.average(gaps, weights=self.frames))

    def to_dict(self) -> dict[str, Any]:
        """The calibration as plain values, for JSON."""
        return {**{name: list(values) for name, values in asdict(self).items()}, "error": self.error}


def held_out_confidence(
    spread: Float[np.ndarray, " f"], right: Bool[np.ndarray, " f"], fold: Int[np.ndarray, " f"]
) -> Float[np.ndarray, " f"]:
    """Confidence of every held-out action by a function that was fitted on the other folds only."""
    confidence = np.zeros(len(spread))
    for number in np.unique(fold):
        inside = fold == number
        confidence[inside] = Confidence.fit(spread[~inside], right[~inside])(spread[inside])
    return confidence


def r_squared(true: Float[np.ndarray, "f a"], read: Float[np.ndarray, "f a"]) -> tuple[float, list[float]]:
    """Share of the variance of the true actions that is explained: over all dimensions together, and of each."""
    left = ((true - read) ** 2).sum(0)
    whole = ((true - true.mean(0)) ** 2).sum(0)
    each: Sequence[float] = [1 - a / b if b else float("nan") for a, b in zip(left, whole, strict=True)]
    return float(1 - left.sum() / whole.sum()), [float(value) for value in each]
