"""What every `hlrp-*` command does the same way."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from draccus import ParsingError
from draccus.cfgparsing import load_config
from draccus.utils import DecodingError
from yaml import YAMLError

from hlrp.signals import Stopped, signals_unwind

USER_ERRORS = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError)


def run_cli(command: Callable[[], object], *, when_stopped: str = "") -> None:
    """Run `command`; a user's mistake ends in one line on stderr and exit status 2, a full disk in status 1.

    A signal ends it in one line too, after it has cleared up: SIGINT in status 130, SIGTERM in 143, SIGHUP in 129. The
    line then ends with `when_stopped`.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        with signals_unwind():
            _require_options_file()
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


def resume_command(name: str) -> str:
    """What to type to resume this run of the training command `name`, which is an installed script."""
    program, *flags = sys.argv
    called = Path(program).stem
    if called.replace("_", "-") != name.removeprefix("hlrp-") and called != name:
        return f"{name} with the same options and --resume=true"
    if "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        # This process is one of several, and does not know how they were started.
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


def _require_options_file() -> None:
    """Raise unless the file that `--config_path` names holds options by name: draccus does not name it.

    Raises:
        ValueError: If it holds anything else.
        OSError: If it cannot be opened.
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
    """What a configuration's own check says, which draccus wraps; its own message, with the name of the option, where a
    value could not be read at all."""
    while error.__cause__ is not None and not isinstance(error, DecodingError):
        error = error.__cause__
    return error


def _one_line(error: BaseException, *, status: int) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return status
