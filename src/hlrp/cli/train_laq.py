"""Options and entry point of `hlrp-train-laq`, stage 1: train a latent action quantizer (LAQ) on video."""

from __future__ import annotations

from typing import Any

from hlrp.cli.common import read_options, run_cli
from hlrp.options.train_laq import TrainLAQConfig


def train_laq(config: TrainLAQConfig) -> Any:
    """Train the quantizer; torch is imported here and not at the top, so that `--help` does not wait for it."""
    from hlrp.commands import train_laq as command

    return command.train_laq(config)


def main() -> None:
    """Entry point of `hlrp-train-laq`."""
    run_cli(lambda: train_laq(read_options(TrainLAQConfig)))


if __name__ == "__main__":
    main()
