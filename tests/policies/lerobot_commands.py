"""LeRobot's commands with the flags a shell would give them, in this process: importing LeRobot takes longer than they.

A command's own `main` runs, on a command line put in place of pytest's. As a program, this file is what two processes
train with, one run after the other: `python -m torch.distributed.run … lerobot_commands.py '[[FLAG, …], …]'`.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import draccus.wrappers.docstring
from accelerate.state import AcceleratorState, GradientState
from lerobot.scripts import lerobot_eval, lerobot_train

# To write the help of every field, draccus parses sources anew for each command: seconds, which nobody reads here.
draccus.wrappers.docstring.get_attribute_docstring = functools.cache(draccus.wrappers.docstring.get_attribute_docstring)


def run_train(*flags: str) -> None:
    """`lerobot-train FLAGS`."""
    _run(lerobot_train.main, "lerobot-train", *flags)


def run_eval(*flags: str) -> None:
    """`lerobot-eval FLAGS`."""
    _run(lerobot_eval.main, "lerobot-eval", *flags)


def policy_flags(**settings: Any) -> list[str]:
    """Settings of a policy as flags."""
    return [f"--policy.{name}={_written(value)}" for name, value in settings.items()]


def train_flags(dataset_root: Path, output: Path, *, steps: int) -> list[str]:
    """Flags of a short training run on a CPU, offline, whatever the policy."""
    return [
        *policy_flags(push_to_hub=False, device="cpu"),
        "--dataset.repo_id=local/moving_square",
        f"--dataset.root={dataset_root}",
        "--batch_size=4",
        "--num_workers=0",
        "--log_freq=1",
        f"--steps={steps}",
        f"--output_dir={output}",
    ]


def pretrained(output: Path, step: str = "last") -> Path:
    """Folder of a policy that `lerobot-train` saved."""
    return output / "checkpoints" / step / "pretrained_model"


def _run(main: Callable[[], None], *command: str) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with patch.object(sys, "argv", list(command)):
            main()
    finally:
        # What the next command, and the next test, would otherwise find: the precision and the devices of this one,
        # and LeRobot's logging in place of pytest's.
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        root.handlers[:] = handlers
        root.setLevel(level)


def _written(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple | list) else str(value)


def train_in_turn(runs: list[list[str]]) -> None:
    """`lerobot-train` several times, in every one of the processes that the launcher started."""
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
    for flags in runs:
        # A port for each run, where its processes meet: that of the last one may not be free yet.
        os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)
        run_train(*flags)


if __name__ == "__main__":
    train_in_turn(json.loads(sys.argv[1]))
