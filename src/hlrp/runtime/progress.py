"""Progress bars on stderr, for loops that take longer than a moment."""

from __future__ import annotations

from collections.abc import Iterable

from tqdm import tqdm

_DELAY_S = 1.0
"""Seconds after which a bar appears; shorter loops show none."""


def progress[T](items: Iterable[T], what: str, *, total: int | None = None) -> Iterable[T]:
    """Iterate over `items` with a progress bar, which is removed at the end.

    Args:
        items: Items to iterate over.
        what: Text before the bar: the work that is done, in a word or two.
        total: Number of items, if `items` has no length.
    """
    return tqdm(items, desc=what, total=total, delay=_DELAY_S, leave=False, dynamic_ncols=True)
