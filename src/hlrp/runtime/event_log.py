"""Events of a command as lines of JSON, for programs that watch a run: start, progress, warnings, results and end.

`event_log` keeps the log of a command for the time of a block. `log_event` adds to it from any place inside the block,
and does nothing if the command keeps no log.
"""

from __future__ import annotations

import logging
import math
import platform
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import draccus

from hlrp.runtime.json_lines import JsonLines
from hlrp.runtime.processes import is_first_process
from hlrp.runtime.signals import Stopped

_VERSIONS = ("lerobot_policy_felix_bundle", "lerobot", "torch", "lightning", "transformers")
"""Packages whose versions the first event names."""
_OWN = "hlrp"
"""Logger whose messages are all events; of other loggers, only warnings and errors are."""

logger = logging.getLogger(__name__)

_logs: list[_EventLog] = []
"""Logs of the running commands, the innermost last; a command that calls another one keeps its own log."""


def log_event(event: str, **facts: object) -> None:
    """Add an event to the log of the running command.

    Args:
        event: Kind of the event, such as "progress".
        facts: What is known about it, as JSON values. A number that is not finite is written as the text "nan", "inf"
            or "-inf", which JSON has no numbers for.
    """
    if _logs:
        _logs[-1].add(event, facts)


@contextmanager
def event_log(path: Path | str | None, *, command: str, options: object) -> Iterator[None]:
    """Keep the log of a command for the time of the block: its start, what `log_event` adds, messages, and its end.

    Args:
        path: File to append to, such as that of the interrupted run; None to keep no log. Only the first of several
            training processes writes.
        command: Name of the command.
        options: Dataclass of the options, which the first event holds.

    Raises:
        ValueError: If `path` is a folder.
        FileNotFoundError: If the folder of `path` does not exist.
        PermissionError: If the file cannot be written.
    """
    if path is None or not is_first_process():
        yield
        return
    _require_file(Path(path))
    began = time.monotonic()
    with appended_log(path):
        log_event("start", command=command, options=draccus.encode(options), versions=_versions())
        try:
            yield
        except (KeyboardInterrupt, Stopped) as stop:
            signum = stop.signum if isinstance(stop, Stopped) else signal.SIGINT
            log_event("stopped", signal=signal.Signals(signum).name, seconds=time.monotonic() - began)
            raise
        except (Exception, SystemExit) as error:
            text = " ".join(str(error).split())
            log_event("error", kind=type(error).__name__, text=text, seconds=time.monotonic() - began)
            raise
        log_event("end", seconds=time.monotonic() - began)


@contextmanager
def appended_log(path: Path | str | None, **always: object) -> Iterator[None]:
    """Add events and messages to the log at `path` for the time of the block, without a start and an end: for the
    worker processes of a command that keeps the log.

    Args:
        path: The log; None to add nothing.
        always: Facts of every event, such as the number of the worker.
    """
    if path is None:
        yield
        return
    log = _EventLog(Path(path), always)
    handler = _Messages(log)
    _logs.append(log)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        _logs.remove(log)


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise ValueError(f"log_json {path} is a folder, expected the name of a file to write")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"the folder of log_json {path} does not exist; create it, or name another file")
    path.open("ab").close()  # now, so that a log that cannot be written does not end the work later


class _EventLog:
    """Adds events to a file; if the disk is full, the command goes on without its log."""

    def __init__(self, path: Path, always: Mapping[str, object]) -> None:
        self._lines: JsonLines | None = JsonLines(path)
        self._always = always

    def add(self, event: str, facts: Mapping[str, object]) -> None:
        """Append one event with its time."""
        if self._lines is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        known = {name: _plain(value) for name, value in {**self._always, **facts}.items()}
        try:
            self._lines.add({"time": now, "event": event, **known})
        except OSError as error:
            self._lines = None  # first, since the warning is an event, too
            logger.warning(f"the log of events ends here, it cannot be written: {error}")


class _Messages(logging.Handler):
    """Adds log messages to the log of events, as "message" or "warning"."""

    def __init__(self, log: _EventLog) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        is_warning = record.levelno >= logging.WARNING
        if is_warning or record.name.partition(".")[0] == _OWN:
            self._log.add("warning" if is_warning else "message", {"text": record.getMessage(), "logger": record.name})


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _VERSIONS:
        with suppress(PackageNotFoundError):  # run from a source tree that is not installed
            found[name] = version(name)
    return found


def _plain(value: object) -> object:
    """`value` without numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
