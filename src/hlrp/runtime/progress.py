"""Progress of loops that take longer than a moment: bars on stderr, and events in the log of the command."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sized
from functools import partial
from types import TracebackType

from tqdm import tqdm

from hlrp.runtime.event_log import log_event

_DELAY_S = 1.0
"""Seconds after which a bar appears; shorter loops show none, and are no events."""
_EVENTS_S = 5.0
"""Seconds between two events of a loop."""


class Pace:
    """How fast a loop goes, and how long it will still take, at the rate since it was begun."""

    def __init__(self, what: str, total: int | None, *, unit: str, done: int = 0) -> None:
        """Begin to measure.

        Args:
            what: The work that is done, in a word or two.
            total: Number of units of the whole work; None if it is not known.
            unit: What is counted, such as "step".
            done: Units that were done before, by an interrupted run.
        """
        self._facts: dict[str, object] = {"what": what, "unit": unit}
        self._total = total
        self._before = done
        self._began = time.monotonic()

    def facts(self, done: int) -> dict[str, object]:
        """Progress after `done` units, those done before included: done, total, units per_s, and left_s in seconds.

        A value that is not known yet is None.
        """
        seconds = time.monotonic() - self._began
        rate = (done - self._before) / seconds if done > self._before and seconds > 0 else None
        left = None if rate is None or self._total is None else max(self._total - done, 0) / rate
        return {**self._facts, "done": done, "total": self._total, "per_s": rate, "left_s": left}


class ProgressBar:
    """Progress of a loop that counts by itself, as a context manager."""

    def __init__(
        self, what: str, total: int | None, *, unit: str, done: int = 0, is_shown: bool = True, is_brief: bool = False
    ) -> None:
        """Begin to count.

        Args:
            what: The work that is done, in a word or two.
            total: Number of units of the whole work; None if it is not known.
            unit: What is counted, such as "frame".
            done: Units that were done before, by an interrupted run.
            is_shown: Whether to show a bar; without it, progress is only in the log of events.
            is_brief: Whether the bar is removed at the end, and not shown at all for a short loop.
        """
        # `disable` is given only to turn the bar off: False would override the user's TQDM_DISABLE.
        shown = tqdm if is_shown else partial(tqdm, disable=True)
        self._bar = shown(
            total=total,
            initial=done,
            desc=what,
            unit=unit,
            delay=_DELAY_S if is_brief else 0,
            leave=not is_brief,
            dynamic_ncols=True,
        )
        self._pace = Pace(what, total, unit=unit, done=done)
        self._done, self._logged = done, done
        self._next_event = time.monotonic() + _DELAY_S
        self._is_long = False

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._is_long and self._done != self._logged:
            self._log()

    def update(self, count: int) -> None:
        """Count `count` further units; less than none takes units back."""
        self._bar.update(count)
        self._done += count
        if time.monotonic() >= self._next_event:
            self._log()

    def _log(self) -> None:
        self._is_long, self._logged = True, self._done
        self._next_event = time.monotonic() + _EVENTS_S
        log_event("progress", **self._pace.facts(self._done))


def progress[T](items: Iterable[T], what: str, *, total: int | None = None, unit: str = "item") -> Iterator[T]:
    """Iterate over `items` with a progress bar, which is removed at the end.

    Args:
        items: Items to iterate over.
        what: Text before the bar: the work that is done, in a word or two.
        total: Number of items, if `items` has no length.
        unit: What the items are.
    """
    count = len(items) if total is None and isinstance(items, Sized) else total
    with ProgressBar(what, count, unit=unit, is_brief=True) as bar:
        for item in items:
            yield item
            bar.update(1)
