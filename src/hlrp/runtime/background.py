"""Compute the items of an iterator in a background thread, ahead of their use."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

_POLL_S = 0.2
"""Seconds after which a thread that waits for room looks whether its items are still wanted."""


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class _End:
    pass


def ahead[T](items: Iterable[T], *, depth: int) -> Generator[T]:
    """Iterate over `items`, which a background thread computes while the caller works with earlier ones.

    The thread gains time only while its work releases Python's global lock, as decoding and tensor operations do. It
    ends when the last item was taken, or when this generator is closed.

    Args:
        items: Items to compute. An error while computing one is raised here, after the items before it.
        depth: Largest number of items that wait.
    """
    waiting: queue.Queue[T | _Failure | _End] = queue.Queue(maxsize=depth)
    unwanted = threading.Event()
    thread = threading.Thread(target=_fill, args=(items, waiting, unwanted), daemon=True, name="read ahead")
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        unwanted.set()
        thread.join()


def _fill[T](items: Iterable[T], waiting: queue.Queue[T | _Failure | _End], unwanted: threading.Event) -> None:
    put = _putter(waiting, unwanted)
    try:
        for item in items:
            if not put(item):
                return
    except BaseException as error:  # raised again in the thread that waits for the item
        put(_Failure(error))
    else:
        put(_End())


def _putter[T](waiting: queue.Queue[T], unwanted: threading.Event) -> Callable[[T], bool]:
    """A function that waits until there is room for an item and puts it there; false if no item is wanted any more."""

    def put(item: T) -> bool:
        while not unwanted.is_set():
            try:
                waiting.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    return put
