"""Checks of option values, with error messages that name the option, the accepted range and the value."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, fields
from typing import Any

from draccus import ParsingError
from draccus.parsers.decoding import decode_dataclass


def require_number(
    name: str,
    value: object,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    limit: float | None = None,
) -> None:
    """Raise unless `value` is a finite number within its bounds.

    Args:
        name: Name of the option on the command line.
        value: A number, or a list of numbers, all of which are checked. None, an option without value, passes.
        at_least: Smallest value that passes.
        above: Exclusive lower bound.
        at_most: Largest value that passes.
        below: Exclusive upper bound.
        limit: Largest size that is taken, far above any useful value (see `size_limits`); named only if it is exceeded.

    Raises:
        ValueError: If a number is not finite or out of bounds.
    """
    numbers: Iterable[object] = value if isinstance(value, (list, tuple)) else [value]
    for number in numbers:
        # Each comparison must hold: with NaN all comparisons are false, so that `if number < 0: raise` would accept it.
        if number is not None and not (
            isinstance(number, (int, float))
            and not isinstance(number, bool)
            and math.isfinite(number)
            and (at_least is None or number >= at_least)
            and (above is None or number > above)
            and (at_most is None or number <= at_most)
            and (below is None or number < below)
        ):
            expected = _range(at_least=at_least, above=above, at_most=at_most, below=below)
            if isinstance(number, float) and not math.isfinite(number):
                expected = f"finite and {expected}"
            raise ValueError(f"{name} must be {expected}, got {value}")
        if limit is not None and isinstance(number, (int, float)) and number > limit:
            raise ValueError(f"{name} must be {limit:.10g} or less, got {value}")


def require_numbers(
    config: object,
    *names: str,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    limit: float | None = None,
) -> None:
    """Apply `require_number` to the fields `names` of a configuration.

    Raises:
        ValueError: For the first field that is out of range.
    """
    for name in names:
        value = getattr(config, name)
        require_number(name, value, at_least=at_least, above=above, at_most=at_most, below=below, limit=limit)


def require_seed(seed: int) -> None:
    """Raise unless `seed` is valid for all random number generators (NumPy has the smallest range).

    Raises:
        ValueError: If `seed` is not in [0, 2**32).
    """
    if isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be 0 or more and below 2**32, got {seed}")


def require_one_of(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise unless `value` is one of `choices`.

    Raises:
        ValueError: If `value` is none of them.
    """
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")


def require_cameras(name: str, cameras: Sequence[str] | None) -> None:
    """Raise if `cameras` names a camera twice; None, an option without value, passes.

    Raises:
        ValueError: If a camera occurs twice.
    """
    if cameras is not None and len(set(cameras)) < len(cameras):
        raise ValueError(f"{name} names a camera twice, got {list(cameras)}; name each camera once")


def changed_options(config: Any, *names: str) -> list[str]:
    """Those of the fields `names` of a configuration whose value is not the default."""
    defaults = {
        option.name: option.default if option.default_factory is MISSING else option.default_factory()
        for option in fields(config)
    }
    return [name for name in names if getattr(config, name) != defaults[name]]


def _range(*, at_least: float | None, above: float | None, at_most: float | None, below: float | None) -> str:
    low, high = (at_least if above is None else above), (at_most if below is None else below)
    if low is not None and high is not None:
        return f"in {'[' if above is None else '('}{low:g}, {high:g}{']' if below is None else ')'}"
    if low is not None:
        return f"{low:g} or more" if above is None else f"above {low:g}"
    if high is not None:
        return f"{high:g} or less" if below is None else f"below {high:g}"
    return "a number"


def raises_parsing_errors(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """Decorator for a configuration's `__post_init__`, so that its error messages reach the user of a LeRobot command.

    draccus replaces a ValueError by "Couldn't instantiate class …", but lets its own ParsingError through. Therefore
    the decorated method raises a ParsingError while draccus is decoding; Python callers get the ValueError.
    """

    @functools.wraps(check)
    def checked(config: Any) -> None:
        try:
            check(config)
        except ValueError as error:
            if not _draccus_is_decoding():
                raise
            raise ParsingError(str(error)) from error

    return checked


def _draccus_is_decoding() -> bool:
    # draccus gives its caller no sign that it is decoding, so the stack is searched for its function.
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is decode_dataclass.__code__:
            return True
        frame = frame.f_back
    return False
