"""Verdicts on single metrics and on whole models, and the rules by which a number becomes a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hlrp.report.metrics import Metric

Word = Literal["good", "weak", "unsure", "–"]
"""Verdict on a metric: `unsure` if the measured clips are too few to decide, a dash if the metric has no threshold."""

SMALLEST_DIFFERENCE = 1e-3
"""Smallest difference that counts as one. Smaller ones print as 0.000, and rounding leaves about 1e-17 if nothing was
learned."""


@dataclass(frozen=True)
class Verdict:
    """One metric with its explanation, its threshold and the verdict on its value."""

    name: str
    value: str
    meaning: str
    wanted: str
    """Threshold in words; empty for a metric that is only shown for comparison."""
    word: Word

    @classmethod
    def of(cls, metric: Metric, value: str, word: Word = "–", wanted: str = "", *, note: str = "") -> Verdict:
        """Verdict on `metric`, whose explanation ends with `note`; by default, the metric has no threshold."""
        return cls(metric.name, value, f"{metric.meaning}{note}", wanted, word)

    @property
    def good(self) -> bool | None:
        """Whether the metric reaches its threshold; None if it has no threshold or the verdict is `unsure`."""
        return {"good": True, "weak": False}.get(self.word)


@dataclass(frozen=True)
class Conclusion:
    """Verdict on a model as a whole."""

    word: Literal["good", "weak", "unsure"]
    reason: str
    """Reason for the verdict: one sentence without a full stop."""
    next_step: str
    """What the user should do next: one sentence without a full stop."""

    def to_dict(self) -> dict[str, str]:
        """Return the fields as JSON values."""
        return dict(vars(self))


def good_or_weak(is_good: bool) -> Word:
    """Verdict on a metric that either reaches its threshold or does not."""
    return "good" if is_good else "weak"


def surely_above_zero(value: float, interval: Sequence[float] | None) -> Word:
    """Judge whether the difference `value` is above 0, given its 95 % percentile bootstrap interval.

    The verdict is good if both the percentile interval and the basic bootstrap interval (the percentile interval
    mirrored at the estimate) lie above 0. The second one guards against an estimate near the lower end of its
    percentile interval, which resampling biases upwards. Without an interval (a single episode) it is unsure.
    """
    if value < SMALLEST_DIFFERENCE:
        return "weak"
    if interval is None:
        return "unsure"
    # The mirrored interval is (2 * value - high, 2 * value - low), so its lower end decides.
    return "good" if interval[0] > 0 and 2 * value - interval[1] > 0 else "unsure"


def without_threshold(metric: Metric, value: float | None) -> Verdict | None:
    """Verdict on a metric that is shown for comparison only; None if it was not measured."""
    return None if value is None else Verdict.of(metric, f"{value:.3f}")


def at_least(metric: Metric, value: float | None, threshold: float) -> Verdict | None:
    """Verdict that is good if `value` is `threshold` or more; None if the metric was not measured."""
    if value is None:
        return None
    return Verdict.of(metric, f"{value:.3f}", good_or_weak(value >= threshold), f"≥ {threshold:g}")


def at_most(metric: Metric, value: float | None, threshold: float) -> Verdict | None:
    """Verdict that is good if `value` is `threshold` or less; None if the metric was not measured."""
    if value is None:
        return None
    return Verdict.of(metric, f"{value:.3f}", good_or_weak(value <= threshold), f"≤ {threshold:g}")


def above_zero(metric: Metric, value: float | None) -> Verdict | None:
    """Verdict that is good if `value` is above 0 by more than rounding; None if the metric was not measured."""
    if value is None:
        return None
    return Verdict.of(metric, f"{value:.3f}", good_or_weak(value >= SMALLEST_DIFFERENCE), "> 0")


def with_interval(value: float, interval: Sequence[float] | None) -> str:
    """Text of a metric, with its interval in parentheses if there is one."""
    return f"{value:.3f}" if interval is None else f"{value:.3f} ({interval[0]:.2f} … {interval[1]:.2f})"
