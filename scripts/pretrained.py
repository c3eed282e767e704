"""Train the models of `pretrained/` and copy them there: `make pretrained`. A stopped run continues."""

from __future__ import annotations

from pathlib import Path

from hlrp.cli.common import read_options, run_cli
from hlrp.commands.demo import demo
from hlrp.demo.pretraining import PretrainingConfig, keep_models
from hlrp.demo.results import draw_plots
from hlrp.storage.artefacts import read_json

FOLDER = Path(__file__).parents[1] / "pretrained"


def pretrain(config: PretrainingConfig) -> None:
    """Run all stages that are not done yet, then replace the models in `pretrained/`."""
    demo(config)
    plots = draw_plots(config, read_json(config.output_dir / "report.json"), config.output_dir / "logs")
    keep_models(config, FOLDER, plots)
    print(f"models: {FOLDER}")


if __name__ == "__main__":
    run_cli(lambda: pretrain(read_options(PretrainingConfig)), when_stopped="; the same command continues here")
