from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from hlrp.runtime.background import ahead


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read ahead"]


def test_items_come_in_order_from_another_thread() -> None:
    threads = set()

    def items() -> Iterator[int]:
        for i in range(10):
            threads.add(threading.current_thread().name)
            yield i

    assert list(ahead(items(), depth=2)) == list(range(10))
    assert threads == {"read ahead"}


def test_no_more_items_than_asked_for_are_computed_ahead() -> None:
    computed: list[int] = []
    third = threading.Event()

    def items() -> Iterator[int]:
        for i in range(100):
            computed.append(i)
            if i == 3:
                third.set()
            yield i

    found = ahead(items(), depth=2)
    assert next(found) == 0
    assert third.wait(5)  # 0 was taken, 1 and 2 wait, 3 has no room
    assert computed == [0, 1, 2, 3]
    found.close()
    assert reading_threads() == []


def test_an_error_is_raised_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the disk is gone")

    found = ahead(items(), depth=5)
    assert next(found) == 1
    with pytest.raises(ValueError, match="the disk is gone"):
        next(found)
    assert reading_threads() == []
