"""Numbers out of range are refused in one sentence, and what is not finite always is."""

from __future__ import annotations

import math

import pytest

from hlrp.runtime.checks import require_number, require_seed


@pytest.mark.parametrize(
    ("value", "bounds", "says"),
    [
        (-1, {"at_least": 0}, "x must be 0 or more, got -1"),
        (0.0, {"above": 0}, r"x must be above 0, got 0\.0"),
        (1.0, {"at_least": 0, "below": 1}, r"x must be in \[0, 1\), got 1\.0"),
        (2, {"above": 0, "at_most": 1}, r"x must be in \(0, 1\], got 2"),
        (5, {"below": 3}, "x must be below 3, got 5"),
        ((4, 0), {"at_least": 1}, r"x must be 1 or more, got \(4, 0\)"),
        (math.inf, {"above": 0}, "x must be finite and above 0, got inf"),
        (math.nan, {}, "x must be finite and a number, got nan"),
        ("3", {"at_least": 1}, "x must be 1 or more, got 3"),
    ],
)
def test_a_number_out_of_range_is_refused(value: object, bounds: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        require_number("x", value, **bounds)


@pytest.mark.parametrize(
    ("value", "bounds"), [(0, {"at_least": 0}), (None, {"above": 0}), ([1, None, 2], {"at_most": 2}), (-3.5, {})]
)
def test_a_number_in_range_and_an_option_left_open_pass(value: object, bounds: dict[str, float]) -> None:
    require_number("x", value, **bounds)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_a_generator_would_refuse_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="seed must be 0 or more and below"):
        require_seed(seed)
