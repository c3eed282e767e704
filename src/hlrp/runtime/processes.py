"""Processes that end with the one that started them, however that one ends."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.process import BaseProcess

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: which signal a process gets when its parent ends."""


def end_with_parent() -> None:
    """Called in a worker of `multiprocessing`: end it at once when the process that started it has ended.

    A worker waits for its next task at a pipe whose other end all workers hold, so it would never learn that the parent
    was killed. A thread waits for that instead.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True, name="end with parent").start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)  # not sys.exit, which ends this thread alone


def terminate_with_parent(parent: int) -> None:
    """Called between fork and exec: let the system send SIGTERM to the new process when its `parent` ends.

    On Linux alone; other systems have no such request.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has ended already
            os.kill(os.getpid(), signal.SIGTERM)
