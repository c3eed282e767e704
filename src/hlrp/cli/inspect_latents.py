"""`hlrp-inspect-latents`: the quality report of a trained LAQ on any dataset."""

from __future__ import annotations

from typing import Any

import draccus

from hlrp.cli.common import run_cli
from hlrp.options.inspect_latents import InspectConfig


def inspect_latents(config: InspectConfig) -> Any:
    """Do what `hlrp.commands.inspect_latents` describes; its imports take many seconds and so come last."""
    from hlrp.commands import inspect_latents as command

    return command.inspect_latents(config)


def main() -> None:
    """Entry point."""
    run_cli(lambda: inspect_latents(draccus.parse(InspectConfig)))


if __name__ == "__main__":
    main()
