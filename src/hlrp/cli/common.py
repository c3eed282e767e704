"""What every `hlrp-*` command does the same way."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

USER_ERRORS = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError)


def run_cli(command: Callable[[], object]) -> None:
    """Run `command`; a user's mistake ends in one line on stderr and exit status 2, a full disk in status 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        command()
    except USER_ERRORS as error:
        sys.exit(_one_line(error, status=2))
    except OSError as error:
        sys.exit(_one_line(error, status=1))


def _one_line(error: BaseException, *, status: int) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return status
