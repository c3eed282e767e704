"""What every `hlrp-*` command does the same way."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from draccus import ParsingError
from draccus.utils import DecodingError
from yaml import YAMLError

from hlrp.runtime.signals import Stopped, signals_unwind

USER_ERRORS = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError)


def run_cli(command: Callable[[], object], *, when_stopped: str = "") -> None:
    """Run `command`; a user's mistake ends in one line on stderr and exit status 2, a full disk in status 1.

    A signal ends it in one line too, after it has cleared up: SIGINT in status 130, SIGTERM in 143, SIGHUP in 129. The
    line then ends with `when_stopped`.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("hlrp").setLevel(logging.INFO)  # libraries that were imported may have configured the root logger
    try:
        with signals_unwind():
            command()
    except KeyboardInterrupt:
        print(f"stopped by SIGINT{when_stopped}", file=sys.stderr)
        sys.exit(130)
    except Stopped as stop:
        print(f"{stop}{when_stopped}", file=sys.stderr)
        raise
    except USER_ERRORS as error:
        sys.exit(_one_line(error, status=2))
    except (ParsingError, YAMLError) as error:
        sys.exit(_one_line(_reason(error), status=2))
    except OSError as error:
        sys.exit(_one_line(error, status=1))


def _reason(error: BaseException) -> BaseException:
    """What a configuration's own check says, which draccus wraps; its own message, with the name of the option, where a
    value could not be read at all."""
    while error.__cause__ is not None and not isinstance(error, DecodingError):
        error = error.__cause__
    return error


def _one_line(error: BaseException, *, status: int) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return status
