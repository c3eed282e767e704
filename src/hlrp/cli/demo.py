"""`hlrp-demo`: from recorded episodes to an evaluated robot policy, on a laptop, without downloads."""

from __future__ import annotations

import sys
from pathlib import Path

import draccus

from hlrp.cli.common import run_cli
from hlrp.demo.results import write_report
from hlrp.demo.road import TRAINING_STAGES, DemoConfig, act_stages, main_stages
from hlrp.demo.stages import Progress, StageFailed, run_stages
from hlrp.files import sole_writer
from hlrp.sim.gl_backend import choose_gl_backend


def demo(config: DemoConfig) -> Path:
    """Run the road, or what is left of it, and report."""
    choose_gl_backend()
    with sole_writer(config.output_dir):
        config.output_dir.mkdir(exist_ok=True)
        return _run(config)


def _run(config: DemoConfig) -> Path:
    progress = Progress(config.output_dir / "progress.json")
    logs = config.output_dir / "logs"
    run_stages(main_stages(config), progress, logs)
    if config.baseline == "act":
        seconds = sum(progress.stages[name]["seconds"] for name in TRAINING_STAGES)
        run_stages(act_stages(config, seconds=round(seconds)), progress, logs)
    summary, report = write_report(config, progress, logs)
    print(f"\n{summary}\n\nreport: {report}")
    return report


def main() -> None:
    """Entry point."""
    try:
        run_cli(lambda: demo(draccus.parse(DemoConfig)), when_stopped="; the same command continues where it stopped")
    except StageFailed as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
