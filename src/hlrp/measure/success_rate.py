"""Confidence intervals of success rates."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from statistics import NormalDist
from typing import Any


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a success rate. It lies in [0, 1] and has a width even at rates of 0 and 1.

    Args:
        successes: Number of solved episodes.
        trials: Number of episodes, at least 1.
        confidence: Confidence level, the share of intervals that cover the true rate, in (0, 1).

    Returns:
        (low, high), both in [0, 1] (Wilson, 1927, without continuity correction).

    Raises:
        ValueError: If there are no trials, more successes than trials, or `confidence` is out of range.
    """
    if trials < 1:
        raise ValueError(f"a success rate needs at least 1 trial, got {trials}")
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must lie in 0 … {trials} trials, got {successes}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    low = 0.0 if successes == 0 else centre - half  # exact at the ends, where rounding would leave 1e-17
    high = 1.0 if successes == trials else centre + half
    return low, high


def task_successes(
    policies: Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return the success rate of each policy on each task with its 95 % Wilson interval.

    Args:
        policies: The report's `policies`: `tasks` (rates in [0, 1]) and `task_episodes` (counts) of each.

    Returns:
        `{policy: {task: (rate, low, high)}}`, as `success_figure` takes it.

    Raises:
        ValueError: If a rate lies outside [0, 1], or does not stand for a whole number of successes.
    """
    return {
        policy: {
            task: (
                rate,
                *wilson_interval(
                    _successes(policy, task, rate, card["task_episodes"][task]), card["task_episodes"][task]
                ),
            )
            for task, rate in card["tasks"].items()
        }
        for policy, card in policies.items()
    }


def _successes(policy: str, task: str, rate: float, episodes: int) -> int:
    """Return the number of successes behind a rate; refuses percentages, which lerobot-eval also reports."""
    successes = round(rate * episodes)
    if not 0 <= rate <= 1 or abs(successes - rate * episodes) > 1e-3:
        raise ValueError(
            f"{policy} on {task}: a success rate of {rate} is no fraction in [0, 1] of {episodes} episodes; "
            "divide lerobot-eval's pc_success by 100"
        )
    return successes
