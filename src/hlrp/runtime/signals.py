"""Signals that end a command: it unwinds, so that nothing half-written stays, and its exit status names the signal."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_Handler = Callable[[int, FrameType | None], Any]

_ENDING = (signal.SIGTERM, signal.SIGHUP)
"""What clusters, service managers and closed terminals send; by default they end Python without any clean-up."""


class Stopped(SystemExit):
    """A signal ended the command; the exit status is 128 plus its number, as shells report a process that it killed."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signum).name}"


@contextmanager
def signals_unwind() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Stopped` inside the block; SIGINT raises KeyboardInterrupt, as it always does."""

    def unwind(signum: int, frame: FrameType | None) -> None:
        raise Stopped(signum)

    with _handled(_ENDING, unwind):
        yield


class StopRequest:
    """A signal that waits until a training step is over, so that the state between two steps can be saved."""

    def __init__(self) -> None:
        self.signum: int | None = None
        """The first signal that came; None as long as none did."""
        self._handled: list[int] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take note of SIGINT, SIGTERM and SIGHUP inside the block. A second SIGINT raises `Stopped` at once; other
        signals may come twice, because `timeout` and cluster managers send them to a process and to its group."""
        with _handled((signal.SIGINT, *_ENDING), self._note) as self._handled:
            yield

    def listen_again(self) -> None:
        """Take the signals back from a library that has put handlers of its own in place."""
        for signum in self._handled:
            signal.signal(signum, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT == self.signum:
            raise Stopped(signum)
        if self.signum is None:
            self.signum = signum
            hint = "; press Ctrl-C again to stop at once" if signum == signal.SIGINT else ""
            # A handler may interrupt a print, and must not print itself.
            os.write(2, f"\n{signal.Signals(signum).name}: stopping after this step{hint}\n".encode())


@contextmanager
def _handled(signals: Iterable[int], handler: _Handler) -> Iterator[list[int]]:
    """Install `handler` inside the block, for those of `signals` that are not ignored (as `nohup` ignores SIGHUP), and
    only in the main thread, since Python allows it nowhere else; yields the signals that it handles."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        known = {signum: signal.getsignal(signum) for signum in signals}
        before = {signum: old for signum, old in known.items() if old not in (signal.SIG_IGN, None)}
    try:
        for signum in before:
            signal.signal(signum, handler)
        yield list(before)
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)
