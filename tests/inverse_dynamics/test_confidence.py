from __future__ import annotations

import numpy as np

from hlrp.inverse_dynamics.confidence import Calibration, Confidence, held_out_confidence, r_squared


def spread_and_right(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Actions that are right the less often, the more the models disagree."""
    draws = np.random.default_rng(0)
    spread = draws.uniform(0.01, 1, frames)
    return spread, draws.uniform(0, 1, frames) < 1 / (1 + spread**2 * 9)


def test_confidence_falls_with_the_spread_and_is_a_probability() -> None:
    spread, right = spread_and_right(4000)
    confidence = Confidence.fit(spread, right)(spread)
    assert ((confidence > 0) & (confidence < 1)).all()
    order = np.argsort(spread)
    assert (np.diff(confidence[order]) <= 0).all()
    assert Calibration.of(confidence, right).error < 0.05


def test_actions_that_are_all_right_give_a_constant_confidence_near_one() -> None:
    spread = np.linspace(0.1, 1, 50)
    confidence = Confidence.fit(spread, np.ones(50, dtype=bool))(spread)
    np.testing.assert_allclose(confidence, 51 / 52)


def test_a_fold_gets_its_confidence_from_the_other_folds() -> None:
    spread, right = spread_and_right(300)
    fold = np.arange(300) % 3
    before = held_out_confidence(spread, right, fold)
    changed = np.where(fold == 1, ~right, right)
    after = held_out_confidence(spread, changed, fold)
    np.testing.assert_array_equal(before[fold == 1], after[fold == 1])
    assert (before[fold != 1] != after[fold != 1]).all()


def test_calibration_error_is_the_mean_distance_of_confidence_and_share_right() -> None:
    confidence = np.array([0.95] * 10 + [0.15] * 10)
    right = np.array([True] * 5 + [False] * 15)
    found = Calibration.of(confidence, right)
    assert found.frames == (10, 10)
    np.testing.assert_allclose(found.error, (0.45 + 0.15) / 2)
    assert found.to_dict()["error"] == found.error


def test_r_squared_of_the_mean_is_zero_and_of_the_truth_is_one() -> None:
    true = np.random.default_rng(1).normal(size=(50, 2))
    assert r_squared(true, true) == (1.0, [1.0, 1.0])
    explained, each = r_squared(true, np.tile(true.mean(0), (50, 1)))
    np.testing.assert_allclose([explained, *each], 0, atol=1e-12)
