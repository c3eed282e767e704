"""`hlrp-demo`: run the stages of the pipeline one after the other, then write the report."""

from __future__ import annotations

import sys
from pathlib import Path

from hlrp.demo.config import DemoConfig
from hlrp.demo.pipeline import TRAINING_STAGES, act_stages, main_stages
from hlrp.demo.stages import Progress, StageFailed, run_stages
from hlrp.sim.gl_backend import choose_gl_backend
from hlrp.storage.files import sole_writer


def demo(config: DemoConfig) -> Path:
    """Run the stages that are not done yet, write the report and return its path.

    Raises:
        FileNotFoundError: If nothing on this machine can render without a display.
        FileExistsError: If another process is writing to `config.output_dir`.
        SystemExit: If a stage fails.
    """
    choose_gl_backend()  # first, so that a machine that cannot render is refused before any stage runs
    with sole_writer(config.output_dir):
        config.output_dir.mkdir(exist_ok=True)
        return _run(config)


def _run(config: DemoConfig) -> Path:
    progress = Progress(config.output_dir / "progress.json")
    logs = config.output_dir / "logs"
    try:
        run_stages(main_stages(config), progress, logs)
        if config.baseline == "act":
            # ACT gets the measured training time of all our stages, so it can start only when they are done.
            seconds = sum(progress.stages[name]["seconds"] for name in TRAINING_STAGES)
            run_stages(act_stages(config, seconds=round(seconds)), progress, logs)
    except StageFailed as error:
        sys.exit(f"error: {error}")
    # Its libraries take half a minute on a busy machine and half a GiB: the last stage imports them while it runs.
    from hlrp.demo.results import write_report

    summary, report = write_report(config, progress, logs)
    print(f"\n{summary}\n\nreport: {report}")
    return report
