"""Options and entry point of `hlrp-train-foundation`, stage 2: train a VLM to predict latent action codes."""

from __future__ import annotations

from typing import Any

from hlrp.cli.common import read_options, run_cli
from hlrp.options.train_foundation import TrainFoundationConfig


def train_foundation(config: TrainFoundationConfig) -> Any:
    """Train the model; torch is imported here and not at the top, so that `--help` does not wait for it."""
    from hlrp.commands import train_foundation as command

    return command.train_foundation(config)


def main() -> None:
    """Entry point of `hlrp-train-foundation`."""
    run_cli(lambda: train_foundation(read_options(TrainFoundationConfig)))


if __name__ == "__main__":
    main()
