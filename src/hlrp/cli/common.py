"""Code that all `hlrp-*` commands share: error messages, exit status, resuming, the choice of device and cameras."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from draccus import ParsingError
from draccus.utils import DecodingError
from yaml import YAMLError

from hlrp.signals import Stopped, signals_unwind

USER_ERRORS = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError)
"""Exceptions that stand for a mistake of the user: a command reports them in one line, without a traceback."""


def run_cli(command: Callable[[], object], *, when_stopped: str = "") -> None:
    """Run `command` and turn expected errors into one line on stderr and an exit status.

    The exit status is 2 for a mistake of the user, 1 for an error of the system such as a full disk, 130 after SIGINT,
    143 after SIGTERM and 129 after SIGHUP. `command` clears up before a signal ends the process.

    Args:
        command: The work to do.
        when_stopped: End of the line that is printed after a signal.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        with signals_unwind():
            command()
    except KeyboardInterrupt:
        print(f"stopped by SIGINT{when_stopped}", file=sys.stderr)
        sys.exit(130)
    except Stopped as stop:
        print(f"{stop}{when_stopped}", file=sys.stderr)
        raise
    # Four of the user errors are subclasses of OSError, so they must be caught before it.
    except USER_ERRORS as error:
        sys.exit(_one_line(error, status=2))
    except (ParsingError, YAMLError) as error:
        sys.exit(_one_line(_reason(error), status=2))
    except OSError as error:
        sys.exit(_one_line(error, status=1))


def resume_command(name: str) -> str:
    """Return the command line that resumes this run, for an error message or a log line.

    Args:
        name: Installed script of the training command, such as "hlrp-train-laq".

    Returns:
        A command line to paste, or a description where it cannot be known (called from Python, several processes).
    """
    program, *flags = sys.argv
    called = Path(program).stem
    if called.replace("_", "-") != name.removeprefix("hlrp-") and called != name:
        return f"{name} with the same options and --resume=true"
    if "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        # torchrun or Slurm started this process as one of several; how they were called is not in sys.argv.
        return "the command that started it, with --resume=true"
    kept = [
        flag
        for before, flag in zip(["", *flags], flags, strict=False)
        if flag.partition("=")[0] != "--resume" and before != "--resume"
    ]
    if program.endswith(".py"):
        start = [sys.executable, "-m", f"hlrp.cli.{called}"]
    else:
        start = [name if shutil.which(name) == os.path.abspath(program) else program]
    return shlex.join([*start, *kept, "--resume=true"])


def choose_device(name: str | None) -> str:
    """Return the device `name`, or if it is None the best device of this machine: cuda, else mps, else cpu.

    Raises:
        ValueError: If this machine has no device `name`.
    """
    import torch  # imported here, since the import takes seconds and `--help` needs no torch

    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kinds = [kind for kind, is_here in found.items() if is_here]
    if name is not None and name.partition(":")[0] not in kinds:
        raise ValueError(f"this machine has no device {name!r}; use {' or '.join(kinds)}")
    return name or kinds[0]


def chosen_cameras(camera: str | None, cameras: list[str]) -> list[str]:
    """Return the dataset keys of the cameras given by `--camera` or `--cameras`; empty if neither is given.

    Raises:
        ValueError: If both are given.
    """
    if camera is not None and cameras:
        raise ValueError("name one camera with camera or several with cameras, not both")
    return cameras if camera is None else [camera]


def _reason(error: BaseException) -> BaseException:
    """Return the innermost cause of an error of draccus: the message of the check in `__post_init__`.

    A `DecodingError` is kept as it is, since its message names the option whose value could not be parsed.
    """
    while error.__cause__ is not None and not isinstance(error, DecodingError):
        error = error.__cause__
    return error


def _one_line(error: BaseException, *, status: int) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return status
