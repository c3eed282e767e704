"""Let child processes end when their parent process ends, even if the parent is killed."""

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
"""Option of Linux's prctl that sets the signal a process gets when its parent ends."""


def end_with_parent() -> None:
    """Call this in a `multiprocessing` worker, so that the worker ends when its parent process ends.

    Without it, a worker waits forever for its next task after the parent was killed: the pipe stays open, since all
    workers hold its other end. A thread waits for the end of the parent instead.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True, name="end with parent").start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)  # sys.exit would end this thread only


def terminate_with_parent(parent: int) -> None:
    """Call this between fork and exec, so that the new process gets SIGTERM when the process `parent` (its id) ends.

    This works on Linux only; other systems have no such option.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent ended before the option was set
            os.kill(os.getpid(), signal.SIGTERM)
