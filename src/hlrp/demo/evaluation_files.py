"""Read the files that lerobot-eval writes: success rates and videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hlrp.measure.success_rate import wilson_interval
from hlrp.storage.artefacts import read_json


def success(eval_info: Path) -> dict[str, Any]:
    """Read success rates in [0, 1] and numbers of episodes, in total and per task, from lerobot-eval's `eval_info`."""
    per_task = read_json(eval_info)["per_task"]
    outcomes = {task["task_group"]: [bool(won) for won in task["metrics"]["successes"]] for task in per_task}
    won, episodes = sum(map(sum, outcomes.values())), sum(map(len, outcomes.values()))
    return {
        "success_rate": won / episodes,
        "episodes": episodes,
        "interval": list(wilson_interval(won, episodes)),
        "tasks": {task: sum(results) / len(results) for task, results in outcomes.items()},
        "task_episodes": {task: len(results) for task, results in outcomes.items()},
    }


def rollout_videos(evaluation: Path) -> dict[str, Path]:
    """Return one rollout video per task in an output folder of lerobot-eval, that of the task's first episode."""
    info = read_json(evaluation / "eval_info.json")
    return {task["task_group"]: Path(task["metrics"]["video_paths"][0]) for task in info["per_task"]}
