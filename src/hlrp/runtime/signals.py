"""Handling of SIGINT, SIGTERM and SIGHUP: commands clean up before they end, and their exit status names the signal."""

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
"""Signals that clusters, service managers and closed terminals send. By default, they end Python without clean-up."""


class Stopped(SystemExit):
    """Exception of a command that a signal ends; the exit status is 128 + the signal's number, as in shells."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signum).name}"


@contextmanager
def signals_unwind(*, when_stopped: str = "") -> Iterator[list[int]]:
    """Let SIGTERM and SIGHUP raise `Stopped` inside the block; SIGINT raises KeyboardInterrupt, as usual in Python.

    A signal that comes while a module is imported ends the process at once, with a line on stderr and the usual exit
    status: libraries that are interrupted there crash, or turn the exception into another one.

    Args:
        when_stopped: End of that line.

    Yields:
        Numbers of the signals that were received.
    """
    received: list[int] = []

    def unwind(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        if _is_importing(frame):
            os.write(2, f"{Stopped(signum)}{when_stopped}\n".encode())
            os._exit(128 + signum)
        raise KeyboardInterrupt if signum == signal.SIGINT else Stopped(signum)

    with _handled((signal.SIGINT, *_ENDING), unwind):
        yield received


def _is_importing(frame: FrameType | None) -> bool:
    """Whether Python's import system has called the code of `frame`."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


class StopRequest:
    """Note of a received signal, which training reads between two steps, so that a consistent state can be saved."""

    def __init__(self) -> None:
        self.signum: int | None = None
        """Number of the first signal received; None if none was received."""
        self._handled: list[int] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note SIGINT, SIGTERM and SIGHUP inside the block instead of ending. A second SIGINT raises `Stopped` at once.
        Other signals may come twice, because `timeout` and cluster managers signal both a process and its group."""
        with _handled((signal.SIGINT, *_ENDING), self._note) as self._handled:
            yield

    def listen_again(self) -> None:
        """Install the handlers again, after a library has replaced them by its own."""
        for signum in self._handled:
            signal.signal(signum, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT == self.signum:
            raise Stopped(signum)
        if self.signum is None:
            self.signum = signum
            hint = "; press Ctrl-C again to stop at once" if signum == signal.SIGINT else ""
            # `print` is not safe here: the handler may have interrupted another print.
            os.write(2, f"\n{signal.Signals(signum).name}: stopping after this step{hint}\n".encode())


@contextmanager
def _handled(signals: Iterable[int], handler: _Handler) -> Iterator[list[int]]:
    """Install `handler` inside the block for all `signals` that are not ignored (`nohup`, for one, ignores SIGHUP).

    Python allows this in the main thread only; in other threads nothing is installed. Yields the handled signals.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {signum: signal.getsignal(signum) for signum in signals}
        before = {signum: old for signum, old in handlers.items() if old not in (signal.SIG_IGN, None)}
    try:
        for signum in before:
            signal.signal(signum, handler)
        yield list(before)
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)
