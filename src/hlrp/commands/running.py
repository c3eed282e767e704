"""On which device a command runs, and what to type to resume it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

import torch


def choose_device(name: str | None) -> str:
    """`name` where this machine has such a device; the best it has where `name` is None.

    Raises:
        ValueError: If this machine has no such device.
    """
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kinds = [kind for kind, is_here in found.items() if is_here]
    if name is not None and name.partition(":")[0] not in kinds:
        raise ValueError(f"this machine has no device {name!r}; use {' or '.join(kinds)}")
    return name or kinds[0]


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
