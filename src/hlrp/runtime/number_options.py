"""Let draccus refuse `true` and `false` as the value of a number option."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from draccus import decode
from draccus.parsers.decoding import decode_from_init, decode_int, get_decoding_fn
from draccus.utils import DecodingError


def refuse_bools_as_numbers() -> None:
    """Make draccus refuse a bool where a number is expected, in all configurations that this process reads.

    Only HLRP's own commands call this: LeRobot declares an option of ACT as an int and saves it as false.

    Python counts a bool as an int, so that draccus would read `--batch_size=true` as a batch size of 1. By the time a
    configuration checks its own values, the bool is gone. So the check is registered where draccus reads a number.
    """
    decode.register(int, partial(_number, decode_int))
    decode.register(float, partial(_number, partial(decode_from_init, float)))
    get_decoding_fn.cache_clear()  # draccus keeps the decoder of a type that it has decoded before


def _number(read: Any, value: object, path: Sequence[str]) -> object:
    if isinstance(value, bool):
        raise DecodingError(path, f"expected a number, got {str(value).lower()}")
    return read(value, path)
