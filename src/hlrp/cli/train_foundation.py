"""`hlrp-train-foundation`: stage 2, teach a vision-language model to speak latent actions."""

from __future__ import annotations

from typing import Any

import draccus

from hlrp.cli.common import run_cli
from hlrp.options.train_foundation import TrainFoundationConfig


def train_foundation(config: TrainFoundationConfig) -> Any:
    """Do what `hlrp.commands.train_foundation` describes; its imports take many seconds and so come last."""
    from hlrp.commands import train_foundation as command

    return command.train_foundation(config)


def main() -> None:
    """Entry point."""
    run_cli(lambda: train_foundation(draccus.parse(TrainFoundationConfig)))


if __name__ == "__main__":
    main()
