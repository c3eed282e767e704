"""The processes of a command: which of them is the first, and children that end with their parent."""

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


_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Variables in which launchers number processes; the first one that is set counts, as in Lightning. SLURM_PROCID may be
set although Slurm has not started the processes of the training."""


def is_first_process() -> bool:
    """Whether this is the first of the processes that train together, by the environment variables of launchers.

    It holds before `torch.distributed` is initialized.
    """
    rank = next((os.environ[name] for name in _RANKS if name in os.environ), "0")
    # RANK counts the processes of all machines; without it, they are counted on each machine.
    return int(rank) == 0 and ("RANK" in os.environ or os.environ.get("NODE_RANK", "0") == "0")


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
