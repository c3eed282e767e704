"""Success rates of the few-labels benchmark with intervals, and differences between methods on the same episodes.

Every method is evaluated from the same initial states, so that a difference is taken episode by episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hlrp.measure.success_rate import wilson_interval

_RESAMPLES = 10_000
"""Bootstrap samples of a difference."""


def cell_summary(outcomes: Mapping[int, Mapping[str, Sequence[bool]]]) -> dict[str, Any]:
    """Success rate of one method at one budget, over all seeds and tasks.

    Args:
        outcomes: Whether each evaluation episode succeeded, by seed and task.

    Returns:
        `success` in [0, 1], `interval` (95 %, Wilson; as if the evaluations of one initial state by the policies of all
        seeds were independent, so that it is somewhat narrow), `seeds` (success rate by seed), `episodes`, and
        `outcomes`: by seed and task, a string with a 1 for every episode that succeeded and a 0 for every other.
    """
    won = [bool(one) for tasks in outcomes.values() for results in tasks.values() for one in results]
    rates = {seed: _rate(tasks) for seed, tasks in outcomes.items()}
    return {
        "success": sum(won) / len(won),
        "interval": list(wilson_interval(sum(won), len(won))),
        "seeds": {str(seed): rate for seed, rate in rates.items()},
        "episodes": len(won),
        "outcomes": {
            str(seed): {task: "".join(str(int(one)) for one in results) for task, results in tasks.items()}
            for seed, tasks in outcomes.items()
        },
    }


def _rate(tasks: Mapping[str, Sequence[bool]]) -> float:
    won = [bool(one) for results in tasks.values() for one in results]
    return sum(won) / len(won)


def paired_difference(
    one: Mapping[int, Mapping[str, Sequence[bool]]], other: Mapping[int, Mapping[str, Sequence[bool]]]
) -> dict[str, Any] | None:
    """Difference in success between two methods on the same evaluation episodes, with a bootstrap interval.

    All seeds are evaluated from the same initial states. Initial states are resampled with replacement (Efron, 1979),
    each with the differences of all seeds. The interval therefore covers the choice of the evaluation episodes for the
    seeds that were run, and not other seeds.

    Returns:
        `difference`, `interval` (95 %), `seeds` (difference by seed) and `episodes`; None if the methods share no seed.
    """
    by_seed = {
        seed: [
            float(a) - float(b) for task in one[seed] for a, b in zip(one[seed][task], other[seed][task], strict=True)
        ]
        for seed in sorted(set(one) & set(other))
    }
    if not by_seed:
        return None
    gaps = np.array(list(by_seed.values()))  # a row for each seed, a column for each initial state
    of_states = gaps.mean(0)
    draws = np.random.default_rng(0).integers(len(of_states), size=(_RESAMPLES, len(of_states)))
    low, high = np.quantile(of_states[draws].mean(1), [0.025, 0.975])
    return {
        "difference": float(gaps.mean()),
        "interval": [float(low), float(high)],
        "seeds": {str(seed): sum(found) / len(found) for seed, found in by_seed.items()},
        "episodes": gaps.size,
    }
