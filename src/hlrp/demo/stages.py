"""Run commands one after the other, remember which are done, and measure their time and memory."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from hlrp.runtime.processes import terminate_with_parent
from hlrp.storage.artefacts import read_json, reading
from hlrp.storage.files import write_json

_SAMPLE_S = 0.5
"""Least time between two measurements of a stage's memory, in seconds."""
_SAMPLE_SHARE = 0.02
"""Share of a core that these measurements may take; one of a large process takes a tenth of a second."""
_SHUTDOWN_S = 15
"""Time that an interrupted stage has to end by itself, in seconds; then it is terminated."""
_RECORD = ("command", "seconds", "peak_gib", "done")
"""Keys of a stage's record in `progress.json`."""
_START_OVER = "remove the folder and start the demo anew"
_LOG_TAIL = 30
"""Number of last lines of a stage's log that are shown when the stage fails."""


class StageFailed(RuntimeError):
    """A stage ended with an error; the message holds the end of its log and the path of the log."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One command of the demo."""

    name: str
    """Short, unique name of the stage, which also names its log file."""
    title: str
    """What the stage does, as shown to the user."""
    command: tuple[str, ...]
    """Program and arguments of the command."""
    resume: Callable[[], tuple[str, ...] | None] = lambda: None
    """Return the command that continues an interrupted run, or clear up and return None to start from the beginning."""
    time_limit_s: float | None = None
    """Seconds after which the command is interrupted and the stage counts as done, for baselines; None: no limit."""
    imports_meanwhile: str | None = None
    """Name of a module that is imported here while the command runs, since the caller needs it next."""


class Progress:
    """Record of which stages are done and what they cost, kept in a file so that a stopped demo can continue."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.stages: dict[str, dict[str, Any]] = _read_progress(path)

    def is_done(self, stage: Stage) -> bool:
        """Return whether an earlier run of `stage` succeeded.

        Raises:
            ValueError: If the earlier run had another command, that is, other settings.
        """
        record = self.stages.get(stage.name, {})
        if record and record["command"] != list(stage.command):
            raise ValueError(
                f"{self._path.parent} was made with other settings for the stage {stage.name!r}; choose another "
                "output_dir, or remove it"
            )
        return bool(record.get("done"))

    def add(self, stage: Stage, *, seconds: float, peak_gib: float, done: bool) -> None:
        """Add a run of `stage` to the record and save it; the times of interrupted runs add up."""
        before = self.stages.get(stage.name, {"seconds": 0.0, "peak_gib": 0.0})
        self.stages[stage.name] = {
            "command": list(stage.command),
            "seconds": before["seconds"] + seconds,
            "peak_gib": max(before["peak_gib"], peak_gib),
            "done": done,
        }
        write_json(self._path, self.stages)


def _read_progress(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    stages = read_json(path, remedy=_START_OVER)
    with reading(path, remedy=_START_OVER):
        return {name: {entry: record[entry] for entry in _RECORD} for name, record in stages.items()}


def run_stages(stages: list[Stage], progress: Progress, logs: Path) -> None:
    """Run the stages that are not done yet.

    Args:
        stages: Stages in the order in which they run.
        progress: Record of the stages that are done, updated after each stage.
        logs: Folder of the log files, one per stage.

    Raises:
        StageFailed: If a command fails; the next call starts with the failed stage.
        ValueError: If a stage was run with other settings earlier.
    """
    logs.mkdir(parents=True, exist_ok=True)
    # All stages are checked before any is run, so that changed settings are refused at once.
    done = {stage.name: progress.is_done(stage) for stage in stages}
    for number, stage in enumerate(stages, start=1):
        heading = f"[{number}/{len(stages)}] {stage.title}"
        if done[stage.name]:
            print(f"{heading}: done earlier, {progress.stages[stage.name]['seconds']:.0f} s", flush=True)
            continue
        print(f"\n{heading}\n    {shlex.join(stage.command)}", flush=True)
        _run(stage, progress, logs / f"{stage.name}.log")


def _run(stage: Stage, progress: Progress, log: Path) -> None:
    continuing = stage.resume()
    start = time.perf_counter()
    with log.open("ab" if continuing else "wb") as sink:
        process = subprocess.Popen(  # noqa: S603  a list of our own commands, no shell
            continuing or stage.command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,  # Ctrl-C reaches the demo alone, which then stops the stage by `_stop`
            preexec_fn=partial(_prepare_stage, os.getpid()),
        )
        meter = _MemoryMeter(process.pid)
        if stage.imports_meanwhile is not None:
            threading.Thread(target=_try_import, args=(stage.imports_meanwhile,)).start()
        # An event and not the exit status says that the limit was reached: an interrupted command ends with an error.
        time_is_up = threading.Event()
        timer = _time_limit(stage, progress, process, time_is_up)
        ended = False
        try:
            _copy_output(process, sink)
            ended = process.wait() == 0 or time_is_up.is_set()
        finally:
            timer.cancel()
            if process.poll() is None:
                _stop(process)
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
            progress.add(stage, seconds=time.perf_counter() - start, peak_gib=meter.stop(), done=ended)
    if not ended:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_TAIL:])
        raise StageFailed(f"{tail}\nthe stage {stage.name!r} failed, see {log}; the same command continues here")


def _try_import(module: str) -> None:
    with suppress(Exception):  # the caller imports the module too, and reports the error
        import_module(module)


def _time_limit(
    stage: Stage, progress: Progress, process: subprocess.Popen[bytes], time_is_up: threading.Event
) -> threading.Timer:
    """Return a timer that stops `process` after the time limit of `stage`; without a limit, it is not started."""
    # The time of interrupted runs counts towards the limit.
    spent = progress.stages.get(stage.name, {}).get("seconds", 0.0)

    def end() -> None:
        time_is_up.set()
        _stop(process)

    timer = threading.Timer(max((stage.time_limit_s or 0.0) - spent, 0), end)
    if stage.time_limit_s is not None:
        timer.start()
    return timer


def _copy_output(process: subprocess.Popen[bytes], sink: BinaryIO) -> None:
    """Copy what the process prints to `sink` and to the terminal, until the process closes its output."""
    assert process.stdout is not None
    # Raw blocks instead of lines: progress bars end in a carriage return and must show at once.
    while block := os.read(process.stdout.fileno(), 65536):
        sink.write(block)
        sink.flush()
        sys.stdout.buffer.write(block)
        sys.stdout.flush()


def _environment() -> dict[str, str]:
    """Return the environment variables of a stage; the hub is switched off, since no stage needs a network."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}


def _prepare_stage(demo: int) -> None:
    """Set up the process of a stage: react to SIGINT, and end when the demo (process id `demo`) ends.

    A demo in the background of a script ignores SIGINT, and its child processes inherit that. A stage has its own
    session, so it would go on after a demo that was killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    terminate_with_parent(demo)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Send SIGINT to the command, so that it clears up; terminate it and its children if they do not end in time."""
    try:
        # The children are listed now: once their parent has ended, they cannot be found any more.
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return  # the process ended by itself
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=_SHUTDOWN_S)
    except subprocess.TimeoutExpired:
        process.terminate()
    for child in children:
        if child.is_running():
            child.terminate()


class _MemoryMeter:
    """Measures the peak memory of a process and its children in a thread; shared pages are counted once (Linux)."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._peak = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        pause = _SAMPLE_S
        while not self._stopped.wait(pause):
            before = time.thread_time()
            # A process may end during the measurement.
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                self._peak = max(self._peak, self._memory())
            pause = max(_SAMPLE_S, (time.thread_time() - before) / _SAMPLE_SHARE)

    def _memory(self) -> int:
        """Memory of the process and its children, in bytes."""
        total = 0
        for process in (self._process, *self._process.children(recursive=True)):
            memory = process.memory_full_info()
            # Linux has the proportional set size; elsewhere only the unshared memory is known.
            total += getattr(memory, "pss", memory.uss)
        return total

    def stop(self) -> float:
        """Stop measuring and return the peak memory, in GiB."""
        self._stopped.set()
        self._thread.join()
        return self._peak / 2**30
