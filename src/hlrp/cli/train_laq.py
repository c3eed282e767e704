"""`hlrp-train-laq`: stage 1, learn latent actions from video alone."""

from __future__ import annotations

from typing import Any

import draccus

from hlrp.cli.common import run_cli
from hlrp.options.train_laq import TrainLAQConfig


def train_laq(config: TrainLAQConfig) -> Any:
    """Do what `hlrp.commands.train_laq` describes; its imports take many seconds and so come last."""
    from hlrp.commands import train_laq as command

    return command.train_laq(config)


def main() -> None:
    """Entry point."""
    run_cli(lambda: train_laq(draccus.parse(TrainLAQConfig)))


if __name__ == "__main__":
    main()
