"""`hlrp-precompute-latent-codes`: label every frame of a dataset with the latent action that starts there."""

from __future__ import annotations

from typing import Any

import draccus

from hlrp.cli.common import run_cli
from hlrp.options.precompute_latent_codes import PrecomputeConfig


def precompute_latent_codes(config: PrecomputeConfig) -> Any:
    """Do what `hlrp.commands.precompute_latent_codes` describes; its imports take many seconds and so come last."""
    from hlrp.commands import precompute_latent_codes as command

    return command.precompute_latent_codes(config)


def main() -> None:
    """Entry point."""
    run_cli(lambda: precompute_latent_codes(draccus.parse(PrecomputeConfig)))


if __name__ == "__main__":
    main()
