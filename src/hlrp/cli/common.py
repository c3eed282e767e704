"""Code that all `hlrp-*` commands share: one-line error messages and the exit status."""

from __future__ import annotations

import argparse
import errno
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import draccus
from draccus import ParsingError
from draccus.cfgparsing import load_config
from draccus.utils import DecodingError
from yaml import YAMLError

from hlrp.runtime.included_files import no_included_files
from hlrp.runtime.number_options import bools_are_no_numbers
from hlrp.runtime.signals import Stopped, signals_unwind
from hlrp.runtime.text_options import exact_text, values_are_no_text

USER_ERRORS = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError)
"""Exceptions that stand for a mistake of the user: a command reports them in one line, without a traceback."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk and of a user's quota that is used up."""
_FREE_SPACE = "; earlier results are unchanged: free some space, and run the command again"


def run_cli(command: Callable[[], object], *, when_stopped: str = "") -> None:
    """Run `command` and turn expected errors into one line on stderr and an exit status.

    The exit status is 2 for a mistake of the user, 1 for an error of the system such as a full disk, 130 after SIGINT,
    143 after SIGTERM and 129 after SIGHUP. `command` clears up before a signal ends the process.

    Args:
        command: The work to do.
        when_stopped: End of the line that is printed after a signal.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("hlrp").setLevel(logging.INFO)  # libraries that were imported may have configured the root logger
    received: list[int] = []
    try:
        with (
            signals_unwind(when_stopped=when_stopped) as received,
            no_included_files(),
        ):
            _require_options_file()
            command()
    except KeyboardInterrupt:
        sys.exit(_stopped(Stopped(signal.SIGINT), when_stopped))
    except Stopped as stop:
        sys.exit(_stopped(stop, when_stopped))
    except Exception as error:
        if received:  # a library has turned the exception of the signal into another one
            sys.exit(_stopped(Stopped(received[0]), when_stopped))
        sys.exit(_report(error))


def read_options[C](config_class: type[C], args: Sequence[str] | None = None) -> C:
    """Read the options of a command; a bool is refused where a number is expected, and a number where a text is.

    Args:
        config_class: Dataclass of the options.
        args: Options to read; None: those of the program.

    Raises:
        ParsingError: If an option is unknown or has a wrong value.
    """
    # Only here: a command may read a policy's configuration, where LeRobot saves a number of ACT as false.
    with bools_are_no_numbers(), values_are_no_text():
        return draccus.parse(config_class, args=exact_text(config_class, sys.argv[1:] if args is None else args))


def _stopped(stop: Stopped, when_stopped: str) -> int:
    """Print what ended the command, and return the exit status."""
    if sys.unraisablehook is sys.__unraisablehook__:
        # A library's object whose construction the signal interrupted may fail in its destructor, with a traceback.
        sys.unraisablehook = lambda _: None
    print(f"{stop}{when_stopped}", file=sys.stderr)
    return 128 + stop.signum


def _report(error: Exception) -> int:
    """Print an expected error in one line, and return the exit status; raise any other error."""
    # Four of the user errors are subclasses of OSError, so they must be recognized before it.
    if isinstance(error, USER_ERRORS):
        return _one_line(error, status=2)
    if isinstance(error, (ParsingError, YAMLError)):
        return _one_line(_reason(error), status=2)
    if isinstance(error, OSError):
        return _one_line(error, status=1, advice=_FREE_SPACE if error.errno in _FULL else "")
    raise error


def _require_options_file() -> None:
    """Raise unless the file `--config_path` holds options by name: the error of draccus would not name the file.

    Raises:
        ValueError: If the file holds anything else.
        OSError: If the file cannot be opened.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config_path", nargs="?")
    path = parser.parse_known_args()[0].config_path
    if path is None:
        return
    expected = "options by name, such as `steps: 100`"
    if Path(path).is_dir():
        raise ValueError(f"config_path {path} is a folder, expected a file with {expected}")
    with open(path, encoding="utf-8") as file:
        try:
            values = load_config(file, file=path)
        except (ParsingError, YAMLError, ValueError) as error:
            raise ValueError(f"config_path {path} cannot be read ({_reason(error)}); expected {expected}") from error
    if not isinstance(values, dict):
        found = "nothing" if values is None else f"a {type(values).__name__}"
        raise ValueError(f"config_path {path} holds {found}, expected {expected}")


def _reason(error: BaseException) -> BaseException:
    """Return the innermost cause of an error of draccus: the message of the check in `__post_init__`.

    A `DecodingError` is kept as it is, since its message names the option whose value could not be parsed.
    """
    while error.__cause__ is not None and not isinstance(error, DecodingError):
        error = error.__cause__
    return error


def _one_line(error: BaseException, *, status: int, advice: str = "") -> int:
    print(f"error: {' '.join(str(error).split())}{advice}", file=sys.stderr)
    return status
