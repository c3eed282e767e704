"""Success rates and their intervals."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from hlrp.measure.success_rate import task_successes, wilson_interval


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (1, 5), (7, 10), (10, 10), (493, 1000)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_the_interval_is_scipys(successes: int, trials: int, confidence: float) -> None:
    theirs = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, trials, confidence) == pytest.approx((theirs.low, theirs.high))


def test_half_of_ten_is_the_textbook_value() -> None:
    assert wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_nothing_and_everything_solved_leave_room() -> None:
    assert wilson_interval(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert wilson_interval(10, 10) == (pytest.approx(0.7225, abs=1e-4), 1.0)


def test_successes_and_failures_mirror_each_other() -> None:
    low, high = wilson_interval(3, 20)
    assert wilson_interval(17, 20) == pytest.approx((1 - high, 1 - low))


def test_more_trials_narrow_the_interval() -> None:
    widths = [high - low for low, high in (wilson_interval(n // 2, n) for n in (4, 16, 64, 256))]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(
    ("successes", "trials", "confidence", "message"),
    [
        (0, 0, 0.95, "at least 1 trial"),
        (4, 3, 0.95, r"0 … 3"),
        (-1, 3, 0.95, r"0 … 3"),
        (1, 3, 1.0, "confidence"),
    ],
)
def test_impossible_counts_are_refused(successes: int, trials: int, confidence: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wilson_interval(successes, trials, confidence)


def test_each_task_gets_the_interval_of_its_own_episodes() -> None:
    card = {"tasks": {"drawer": 0.5, "door": 1.0}, "task_episodes": {"drawer": 10, "door": 4}}
    successes = task_successes({"act": card})
    assert successes["act"]["drawer"] == (0.5, *wilson_interval(5, 10))
    assert successes["act"]["door"] == (1.0, *wilson_interval(4, 4))


@pytest.mark.parametrize("rate", [80.0, -0.1, 0.55])
def test_a_percentage_or_a_part_of_an_episode_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="act on drawer"):
        task_successes({"act": {"tasks": {"drawer": rate}, "task_episodes": {"drawer": 10}}})
