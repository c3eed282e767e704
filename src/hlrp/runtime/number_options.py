"""Let draccus refuse `true` and `false` as the value of a number option."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from draccus import decode
from draccus.parsers.decoding import decode_from_init, decode_int, get_decoding_fn
from draccus.utils import DecodingError

_READERS: dict[type, Any] = {int: decode_int, float: partial(decode_from_init, float)}
"""How draccus itself reads numbers."""


@contextmanager
def bools_are_no_numbers() -> Iterator[None]:
    """Within the block, draccus refuses a bool where a number is expected.

    Python counts a bool as an int, so that draccus would read `--batch_size=true` as a batch size of 1. By the time a
    configuration checks its own values, the bool is gone. So the check is registered where draccus reads a number.
    Afterwards draccus reads numbers as before: LeRobot declares an option of ACT as an int and saves it as false.
    """
    register_readers({kind: partial(_number, read) for kind, read in _READERS.items()})
    try:
        yield
    finally:
        register_readers(_READERS)


def register_readers(readers: dict[type, Any]) -> None:
    """Let draccus read values of each type with the function given for it."""
    for kind, read in readers.items():
        decode.register(kind, read)
    get_decoding_fn.cache_clear()  # draccus keeps the decoder of a type that it has decoded before


def _number(read: Any, value: object, path: Sequence[str]) -> object:
    if isinstance(value, bool):
        raise DecodingError(path, f"expected a number, got {str(value).lower()}")
    return read(value, path)
