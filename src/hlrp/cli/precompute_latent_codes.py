"""Options and entry point of `hlrp-precompute-latent-codes`, which labels every frame of a dataset with LAQ codes."""

from __future__ import annotations

from typing import Any

from hlrp.cli.common import read_options, run_cli
from hlrp.options.precompute_latent_codes import PrecomputeConfig


def precompute_latent_codes(config: PrecomputeConfig) -> Any:
    """Label the dataset; torch is imported here and not at the top, so that `--help` does not wait for it."""
    from hlrp.commands import precompute_latent_codes as command

    return command.precompute_latent_codes(config)


def main() -> None:
    """Entry point of `hlrp-precompute-latent-codes`."""
    run_cli(
        lambda: precompute_latent_codes(read_options(PrecomputeConfig)),
        when_stopped="; finished shards are kept, and the same command continues with the others",
    )


if __name__ == "__main__":
    main()
