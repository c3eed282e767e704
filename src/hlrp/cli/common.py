"""What every `hlrp-*` command does the same way."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from draccus import ParsingError

USER_ERRORS = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError)


def run_cli(command: Callable[[], object]) -> None:
    """Run `command`; a user's mistake ends in one line on stderr and exit status 2, a full disk in status 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("hlrp").setLevel(logging.INFO)  # libraries that were imported may have configured the root logger
    try:
        command()
    except USER_ERRORS as error:
        sys.exit(_one_line(error, status=2))
    except ParsingError as error:  # draccus wraps what a configuration's own check says
        sys.exit(_one_line(error.__cause__ or error, status=2))
    except OSError as error:
        sys.exit(_one_line(error, status=1))


def choose_device(name: str | None) -> str:
    """`name` where this machine has such a device; the best it has where `name` is None.

    Raises:
        ValueError: If this machine has no such device.
    """
    import torch  # late: `hlrp-collect-demos` does without

    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kinds = [kind for kind, is_here in found.items() if is_here]
    if name is not None and name.partition(":")[0] not in kinds:
        raise ValueError(f"this machine has no device {name!r}; use {' or '.join(kinds)}")
    return name or kinds[0]


def chosen_cameras(camera: str | None, cameras: list[str]) -> list[str]:
    """The cameras that `--camera` or `--cameras` names; empty where neither does.

    Raises:
        ValueError: If both do.
    """
    if camera is not None and cameras:
        raise ValueError("name one camera with camera or several with cameras, not both")
    return cameras if camera is None else [camera]


def _one_line(error: BaseException, *, status: int) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return status
