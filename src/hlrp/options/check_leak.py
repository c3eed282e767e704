"""Options of `hlrp-check-leak`, and which flags of its command line are those of lerobot-train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hlrp.runtime.checks import require_numbers, require_seed

LEROBOT_FLAGS = ("--policy.", "--dataset.", "--rename_map", "--tolerance_s")
"""Beginnings of the flags that are read as lerobot-train reads them."""


@dataclass
class CheckLeakConfig:
    """Check whether a LeRobot policy can see the future: in its training loss, or in the action it chooses.

    The policy and its dataset are named as for lerobot-train: --policy.path, or --policy.type and its options,
    --dataset.repo_id, --dataset.root, --rename_map and so on. The exit status is 0 if nothing leaks and 1 if something
    does. Nothing is trained, and nothing is written but the file of --json.
    """

    samples: int = 8
    """Frames of the dataset that are checked together, in one batch; 2 or more."""
    seed: int = 0
    """Seed of the sampled frames, of new weights, and of the noise of every run of the policy."""
    target_keys: list[str] = field(default_factory=list)
    """Observations whose later values are targets of the training loss alone, as in a world model that predicts
    frames. The loss may depend on these values, the action never: it is computed without them."""
    json: Path | None = None
    """File for the result as JSON; default: none."""

    def __post_init__(self) -> None:
        require_numbers(self, "samples", at_least=2)
        require_seed(self.seed)


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments of a command line for this command, and those for LeRobot, each with the values that follow it."""
    own: list[str] = []
    lerobot: list[str] = []
    chosen = own
    for argument in arguments:
        if argument.startswith("--"):
            chosen = lerobot if argument.startswith(LEROBOT_FLAGS) else own
        chosen.append(argument)
    return own, lerobot
