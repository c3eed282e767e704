"""Every measurement of stage 3, the LeRobot policies, in one command: `make bench-policies`.

Sections: `success` (six policies on six tasks after equal training time), `latency` (time to an action, beside
LeRobot's policies). Each writes its part of `outputs/benchmarks/policies.json` when it is done; what is trained or
evaluated already is not done again, and a training that was interrupted goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import policy_latency, policy_success
from benchmarks.laq import TASKS, demonstrations
from benchmarks.laq import BenchConfig as LAQBenchConfig
from benchmarks.running import require_known, run_benchmark, run_sections
from hlrp.runtime.tables import table
from hlrp.storage.files import write_json


@dataclass
class BenchConfig:
    """Measure stage 3, the policies."""

    output: Path = Path("outputs/benchmarks/policies.json")
    """JSON file of the results; results of sections that are not run now stay in the file."""
    quick: bool = False
    """Rough results: 5 minutes of training, 5 evaluation episodes of each task, few repeats."""
    sections: list[str] = field(default_factory=lambda: ["success", "latency"])
    policies: list[str] = field(default_factory=lambda: list(policy_success.POLICIES))
    """Policies that `success` trains and evaluates now; those it has finished before stay in the results."""
    minutes: float = 15.0
    """Training time of each policy in `success`, on one thread; LAQ, labels and foundation count where they are used.
    With `quick`: 5."""
    eval_episodes: int = 20
    """Evaluation episodes of each task. With `quick`: 5."""

    def __post_init__(self) -> None:
        require_known("sections", self.sections, SECTIONS)
        require_known("policies", self.policies, policy_success.POLICIES)
        if self.minutes <= 0 or self.eval_episodes < 1:
            raise ValueError(
                f"minutes must be positive and eval_episodes 1 or more, got {self.minutes} and {self.eval_episodes}"
            )

    @property
    def runs(self) -> Path:
        """Folder of trained models and evaluations."""
        return self.output.parent / ("policies_quick" if self.quick else "policies")


def success(config: BenchConfig) -> dict[str, Any]:
    """Measure success rates in simulation after equal training time."""
    laq_config = LAQBenchConfig(output=config.output.with_name("laq.json"), quick=config.quick)
    contest = policy_success.Contest(
        folder=config.runs,
        dataset=demonstrations(laq_config, "six_tasks_30", episodes=30),
        tasks=TASKS,
        minutes=5.0 if config.quick else config.minutes,
        eval_episodes=5 if config.quick else config.eval_episodes,
        laq_steps=150 if config.quick else 500,
        foundation_steps=300 if config.quick else 1500,
        calibration_steps=(3, 28) if config.quick else (5, 40),
    )
    results = policy_success.run(contest, config.policies)
    print(policy_success.rows(results))
    return results


def latency(config: BenchConfig) -> dict[str, Any]:
    """Measure the milliseconds until an action and until a chunk."""
    results = policy_latency.run(repeats=6 if config.quick else 20)
    print(policy_latency.rows(results))
    return results


SECTIONS: dict[str, Callable[[BenchConfig], dict[str, Any]]] = {"success": success, "latency": latency}


def main(config: BenchConfig) -> None:
    """Run the sections one after the other, then compare the measured times with the aims."""
    run_sections(config.sections, SECTIONS, config, config.output, keys={}, quick=config.quick)
    if "latency" in config.sections:
        results = json.loads(config.output.read_text(encoding="utf-8"))
        aims = policy_latency.aims(results["latency"])
        write_json(config.output, {**results, "aims": aims})
        print(table(["aim", "wanted", "found", ""], [policy_latency.aim_row(name, aim) for name, aim in aims.items()]))


if __name__ == "__main__":
    run_benchmark(BenchConfig, main)
