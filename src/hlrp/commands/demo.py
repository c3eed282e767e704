"""`hlrp-demo`: the stages one after the other, then the report."""

from __future__ import annotations

import sys
from pathlib import Path

from hlrp.demo.config import DemoConfig
from hlrp.demo.results import write_report
from hlrp.demo.road import TRAINING_STAGES, act_stages, main_stages
from hlrp.demo.stages import Progress, StageFailed, run_stages
from hlrp.sim.gl_backend import choose_gl_backend


def demo(config: DemoConfig) -> Path:
    """Run the stages, or what is left of them, and report."""
    choose_gl_backend()
    config.output_dir.mkdir(parents=True, exist_ok=True)
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
