"""Options and entry point of `hlrp-inspect-latents`, which measures the quality of a trained LAQ on a dataset."""

from __future__ import annotations

from typing import Any

from hlrp.cli.common import read_options, run_cli
from hlrp.options.inspect_latents import InspectConfig


def inspect_latents(config: InspectConfig) -> Any:
    """Measure the LAQ; torch is imported here and not at the top, so that `--help` does not wait for it."""
    from hlrp.commands import inspect_latents as command

    return command.inspect_latents(config)


def main() -> None:
    """Entry point of `hlrp-inspect-latents`."""
    run_cli(lambda: inspect_latents(read_options(InspectConfig)))


if __name__ == "__main__":
    main()
