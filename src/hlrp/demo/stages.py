"""Run commands one after the other, remember which are done, and measure what they cost."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from hlrp.runtime.processes import terminate_with_parent
from hlrp.storage.artefacts import read_json, reading
from hlrp.storage.files import write_json

_SAMPLE_S = 0.5
"""Time between two looks at the memory of a stage."""
_PATIENCE_S = 15
"""Time an interrupted stage has to end."""
_RECORD = ("command", "seconds", "peak_gib", "done")
"""What `Progress` keeps of every stage."""
_START_OVER = "remove the folder and start the demo anew"
_LOG_TAIL = 30
"""Lines of its log shown when a stage fails."""


class StageFailed(RuntimeError):
    """A command ended with an error; the message says where to look."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One command of the road."""

    name: str
    """Short and unique; names its log."""
    title: str
    """What it does, for people."""
    command: tuple[str, ...]
    """Program and arguments."""
    resume: Callable[[], tuple[str, ...] | None] = lambda: None
    """Command that continues an interrupted run, or None after clearing away what cannot be continued."""
    time_limit_s: float | None = None
    """Interrupt the command after this time and count the stage as done; for baselines on a budget."""


class Progress:
    """Which stages are done, at what cost: survives an interruption of the demo."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.stages: dict[str, dict[str, Any]] = _read_progress(path)

    def is_done(self, stage: Stage) -> bool:
        """Whether `stage` ended well earlier.

        Raises:
            ValueError: If it did so with other settings.
        """
        record = self.stages.get(stage.name, {})
        if record and record["command"] != list(stage.command):
            raise ValueError(
                f"{self._path.parent} was made with other settings for the stage {stage.name!r}; choose another "
                "output_dir, or remove it"
            )
        return bool(record.get("done"))

    def add(self, stage: Stage, *, seconds: float, peak_gib: float, done: bool) -> None:
        """Count another run of `stage`; runs that were interrupted add up."""
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
    """Run what is not done yet.

    Raises:
        StageFailed: If a command fails; the next call starts with it.
    """
    logs.mkdir(parents=True, exist_ok=True)
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
    command = continuing or stage.command
    start = time.perf_counter()
    with log.open("ab" if continuing else "wb") as sink:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
            preexec_fn=partial(_prepare_stage, os.getpid()),
        )
        meter = _MemoryMeter(process.pid)
        stopped = threading.Event()
        timer = None
        if stage.time_limit_s is not None:
            spent = progress.stages.get(stage.name, {}).get("seconds", 0.0)
            timer = threading.Timer(max(stage.time_limit_s - spent, 0), _stop, (process, stopped))
            timer.start()
        ended = False
        assert process.stdout is not None
        try:
            while block := os.read(process.stdout.fileno(), 65536):
                sink.write(block)
                sink.flush()
                sys.stdout.buffer.write(block)
                sys.stdout.flush()
            ended = process.wait() == 0 or stopped.is_set()
        finally:
            if timer is not None:
                timer.cancel()
            if process.poll() is None:
                _stop(process, stopped)
                process.wait()
            process.stdout.close()
            progress.add(stage, seconds=time.perf_counter() - start, peak_gib=meter.stop(), done=ended)
    if not ended:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_TAIL:])
        raise StageFailed(f"{tail}\nthe stage {stage.name!r} failed, see {log}; the same command continues here")


def _environment() -> dict[str, str]:
    """The environment of stages: nothing of the demo needs a network."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}


def _prepare_stage(demo: int) -> None:
    """A demo started in the background of a script ignores Ctrl-C, and what it starts would too. And a stage, which has
    a session of its own, would outlive a demo that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    terminate_with_parent(demo)


def _stop(process: subprocess.Popen[bytes], stopped: threading.Event) -> None:
    """Interrupt the command as Ctrl-C would, so that it clears up after itself; end what does not follow."""
    stopped.set()
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return  # it ended by itself meanwhile
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.terminate()
    for each in family:
        if each.is_running():
            each.terminate()


class _MemoryMeter:
    """Highest memory of a process and its children, shared pages counted once."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._peak = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(_SAMPLE_S):
            total = 0
            try:
                for process in (self._process, *self._process.children(recursive=True)):
                    memory = process.memory_full_info()
                    total += getattr(memory, "pss", memory.uss)  # pss is Linux's; elsewhere what it alone holds
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # it ended while being looked at
            self._peak = max(self._peak, total)

    def stop(self) -> float:
        """Peak so far, in GiB."""
        self._stopped.set()
        self._thread.join()
        return self._peak / 2**30
