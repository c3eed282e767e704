"""`hlrp-demo`: the stages one after the other, then the report."""

from __future__ import annotations

import sys
from pathlib import Path

from hlrp.demo.config import DemoConfig
from hlrp.demo.pipeline import TRAINING_STAGES, act_stages, main_stages
from hlrp.demo.results import write_report
from hlrp.demo.stages import Progress, StageFailed, run_stages
from hlrp.sim.gl_backend import choose_gl_backend
from hlrp.storage.files import sole_writer


def demo(config: DemoConfig) -> Path:
    """Run the road, or what is left of it, and report."""
    choose_gl_backend()
    with sole_writer(config.output_dir):
        config.output_dir.mkdir(exist_ok=True)
        return _run(config)


def _run(config: DemoConfig) -> Path:
    progress = Progress(config.output_dir / "progress.json")
    logs = config.output_dir / "logs"
    try:
        run_stages(main_stages(config), progress, logs)
        if config.baseline == "act":
            seconds = sum(progress.stages[name]["seconds"] for name in TRAINING_STAGES)
            run_stages(act_stages(config, seconds=round(seconds)), progress, logs)
    except StageFailed as error:
        sys.exit(f"error: {error}")
    summary, report = write_report(config, progress, logs)
    print(f"\n{summary}\n\nreport: {report}")
    return report
