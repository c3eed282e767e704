"""On which device a command runs, and what to type to resume it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import torch


def choose_device(name: str | None) -> str:
    """Return the device `name`, or if it is None the best device of this machine: cuda, else mps, else cpu.

    Raises:
        ValueError: If this machine has no device `name`.
    """
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kinds = [kind for kind, is_here in found.items() if is_here]
    if name is not None and name.partition(":")[0] not in kinds:
        raise ValueError(f"this machine has no device {name!r}; use {' or '.join(kinds)}")
    return name or kinds[0]


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
        flag for before, flag in pairwise(["", *flags]) if flag.partition("=")[0] != "--resume" and before != "--resume"
    ]
    if program.endswith(".py"):
        start = [sys.executable, "-m", f"hlrp.cli.{called}"]
    else:
        start = [name if shutil.which(name) == os.path.abspath(program) else program]
    return shlex.join([*start, *kept, "--resume=true"])
