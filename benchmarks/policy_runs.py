"""Train one policy with `lerobot-train` for a number of steps, and evaluate it on Meta-World."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.forked import run_forked
from hlrp.demo.pipeline import EVAL_SEED, evaluation_flags
from hlrp.storage.files import write_json

_EVAL_STEPS = 120
"""Steps that an evaluation episode may take; the experts need fewer than 100."""


class PolicySettings(Protocol):
    """Numbers of steps and sizes of a policy's training and evaluation."""

    @property
    def steps(self) -> int:
        """Gradient steps."""
        ...

    @property
    def batch_size(self) -> int:
        """Frames per step."""
        ...

    @property
    def eval_episodes(self) -> int:
        """Evaluation episodes of each task."""
        ...

    @property
    def device(self) -> str:
        """Device of all networks; the simulation runs on the CPU."""
        ...


def train_and_evaluate(
    folder: Path, flags: Sequence[str], settings: PolicySettings, *, tasks: Sequence[str], seed: int
) -> dict[str, Any]:
    """Train a policy, evaluate it and delete it; see `train_policy` and `evaluate_policy`."""
    train_policy(folder, flags, settings, seed=seed)
    found = evaluate_policy(folder, settings, tasks=tasks)
    delete_policy(folder)
    return found


def trained_record(folder: Path) -> Path:
    """JSON file that `train_policy` writes last: `command` (options) and `train_minutes` (CPU time)."""
    return folder / "trained.json"


def train_policy(folder: Path, flags: Sequence[str], settings: PolicySettings, *, seed: int) -> None:
    """Train a policy.

    Args:
        folder: Folder of this run; what an interrupted run left there is removed.
        flags: Options of lerobot-train that describe the policy and its data.
        settings: Steps, sizes and device.
        seed: Seed of the weights and of the training batches.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shared = train_flags(
        folder / "train", steps=settings.steps, batch_size=settings.batch_size, seed=seed, device=settings.device
    )
    command = [*flags, *shared]
    cost = run_forked("benchmarks.train_in_memory", *command, log=folder / "train.log")
    write_json(trained_record(folder), {"command": command, "train_minutes": cost.cpu_minutes})


def evaluate_policy(folder: Path, settings: PolicySettings, *, tasks: Sequence[str]) -> dict[str, Any]:
    """Evaluate the policy that `train_policy` left in `folder`.

    Args:
        folder: Folder of the run.
        settings: Episodes of each task, and the device.
        tasks: Meta-World tasks of the evaluation. Their episodes are the same for all seeds of the training.

    Returns:
        `outcomes` (whether each evaluation episode succeeded, by task), `train_minutes` and `eval_minutes` (CPU time),
        and the `command` of the training.
    """
    shutil.rmtree(folder / "eval", ignore_errors=True)
    evaluation = eval_flags(
        folder / "train" / "checkpoints" / "last" / "pretrained_model",
        folder / "eval",
        tasks=tasks,
        episodes=settings.eval_episodes,
        steps=_EVAL_STEPS,
        device=settings.device,
    )
    cost = run_forked("lerobot.scripts.lerobot_eval", *evaluation, log=folder / "eval.log")
    outcomes = read_outcomes(folder / "eval" / "eval_info.json")
    trained = json.loads(trained_record(folder).read_text(encoding="utf-8"))
    return {"outcomes": outcomes, "eval_minutes": cost.cpu_minutes, **trained}


def delete_policy(folder: Path) -> None:
    """Delete weights and videos in the folder of a run, when its result is written; the logs stay."""
    for part in ("train", "eval"):
        shutil.rmtree(folder / part)


def train_flags(output: Path, *, steps: int, batch_size: int, seed: int, device: str) -> list[str]:
    """Options of lerobot-train that all policies share."""
    return [
        "--policy.push_to_hub=false",
        f"--policy.device={device}",
        f"--batch_size={batch_size}",
        "--num_workers=0",
        f"--steps={steps}",
        f"--log_freq={min(steps, 20)}",
        f"--seed={seed}",
        f"--output_dir={output}",
    ]


def eval_flags(
    policy: Path, output: Path, *, tasks: Sequence[str], episodes: int, steps: int, device: str = "cpu"
) -> list[str]:
    """Options of lerobot-eval for `episodes` episodes of every task, each of at most `steps` steps."""
    common = evaluation_flags(
        policy, output, tasks=tasks, episodes_per_task=episodes, episode_length=steps, seed=EVAL_SEED
    )
    # The size of the observations, so that nothing is rendered twice.
    return [*common, f"--policy.device={device}", "--env.visualization_height=64", "--env.visualization_width=64"]


def read_outcomes(eval_info: Path) -> dict[str, list[bool]]:
    """Whether each evaluation episode succeeded, by task, from lerobot-eval's `eval_info.json`."""
    tasks = json.loads(eval_info.read_text(encoding="utf-8"))["per_task"]
    return {task["task_group"]: [bool(won) for won in task["metrics"]["successes"]] for task in tasks}
