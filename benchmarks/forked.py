"""Run commands in processes that are forked from one that has imported the libraries.

The imports of LeRobot, transformers and this project take several seconds of every command, which adds up over the
hundreds of short commands of a benchmark.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import runpy
import sys
import time
import traceback
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

from benchmarks.running import Cost, command_failed

_IMPORTED = (
    "lerobot.scripts.lerobot_train",
    "lerobot.scripts.lerobot_eval",
    "hlrp.cli.train_laq",
    "hlrp.cli.precompute_latent_codes",
    "hlrp.cli.train_foundation",
    "hlrp.cli.pseudo_label",
    "lerobot_policy_felix_bundle",
)
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TQDM_MININTERVAL": "10",
    # `torch.cuda.is_available()` asks the driver's library without starting CUDA, which does not survive a fork.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}


@cache
def _context() -> ForkServerContext:
    """Set the environment of all commands, and what the process that they are forked from imports."""
    os.environ.update(_ENVIRONMENT)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    return context


def run_forked(module: str, *flags: str, log: Path, append: bool = False) -> Cost:
    """Run `python -m module flags` on one thread, in a forked process; its output goes to `log`, or to its end.

    The cost does not include the imports.

    Raises:
        RuntimeError: If the command fails; the message holds the end of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if not append:
        log.unlink(missing_ok=True)
    start = time.perf_counter()
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = _context().Process(target=_run, args=(module, flags, log, sender))
    process.start()
    sender.close()
    try:
        cpu_minutes, peak_gib = receiver.recv()
    except EOFError:  # the process was killed
        cpu_minutes, peak_gib = 0.0, 0.0
    process.join()
    if process.exitcode:
        raise command_failed(module, process.exitcode, log)
    return Cost(cpu_minutes, (time.perf_counter() - start) / 60, peak_gib)


def _run(module: str, flags: tuple[str, ...], log: Path, cost: Connection) -> None:
    """Run a module as a command in this process, and send its CPU minutes and its largest memory in GiB."""
    with log.open("a", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.argv = [module, *flags]
    sys.modules.pop(module, None)  # it runs anew, as `__main__`
    status: str | int | None = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
    except BaseException:  # as Python ends a program that raised
        traceback.print_exc()
        status = 1
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cost.send((sum(one.ru_utime + one.ru_stime for one in usage) / 60, usage[0].ru_maxrss / 2**20))
    sys.exit(status)
