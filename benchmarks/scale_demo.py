"""Time of `hlrp-demo` and of its stages, success of its policy, and R² of its codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.running import run_command
from hlrp.demo.pipeline import OUR_POLICY
from hlrp.storage.artefacts import read_json

_QUICK = (
    "--tasks=[button-press-topdown-v3]",
    "--episodes_per_task=4",
    "--eval_episodes_per_task=1",
    "--episode_length=20",
    "--image_size=32",
    "--laq_preset=debug",
    "--laq_steps=20",
    "--foundation_steps=20",
    "--policy_steps=20",
    "--batch_size=8",
)
"""Options of a demo that only shows whether everything runs."""


def run(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Run the demo into `folder`, with the default options or as short as possible, and return its results.

    An interrupted demo continues. A demo that ended earlier is not run again.

    Returns:
        See `results`.
    """
    if not (folder / "report.json").is_file():
        flags = _QUICK if quick else ()
        log = folder.with_name(f"{folder.name}.log")
        run_command("hlrp.cli.demo", f"--output_dir={folder}", *flags, log=log, append=True, threads=None)
    return results(folder)


def results(folder: Path) -> dict[str, Any]:
    """Read the results of the demo in `folder`.

    Returns:
        `seconds` by the clock: the sum of `stages`, the seconds of every stage; interrupted runs count. `success`:
        share of the evaluation episodes that the policy solved, with a 95 % interval (`success_interval`) and their
        number (`episodes`). `probe_r2`: held-out R² of the action chunk, read linearly from the one-hot codes.
    """
    stages = {name: stage["seconds"] for name, stage in read_json(folder / "progress.json").items()}
    report = read_json(folder / "report.json")
    policy = report["policies"][OUR_POLICY]
    return {
        "seconds": sum(stages.values()),
        "stages": stages,
        "success": policy["success_rate"],
        "success_interval": policy["interval"],
        "episodes": policy["episodes"],
        "probe_r2": report["laq"]["probe_r2"],
    }
