"""Progress bars on stderr, for loops that take longer than a moment."""

from __future__ import annotations

from collections.abc import Iterable

from tqdm import tqdm

_DELAY_S = 1.0
"""Loops that end within this time show no bar."""


def progress[T](items: Iterable[T], what: str, *, total: int | None = None) -> Iterable[T]:
    """`items`, with a bar named `what` while they are gone through, cleared at the end.

    Args:
        items: What to go through.
        what: The work that is done on each, in a word or two.
        total: Number of items, where `items` does not know its length.
    """
    return tqdm(items, desc=what, total=total, delay=_DELAY_S, leave=False, dynamic_ncols=True)
