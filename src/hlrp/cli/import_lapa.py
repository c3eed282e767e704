"""Options and entry point of `hlrp-import-lapa`, which converts LAPA's released quantizer into a LAQ checkpoint."""

from __future__ import annotations

from typing import Any

from hlrp.cli.common import read_options, run_cli
from hlrp.options.import_lapa import ImportLapaConfig


def import_lapa(config: ImportLapaConfig) -> Any:
    """Convert the weights; torch is imported here and not at the top, so that `--help` does not wait for it."""
    from hlrp.commands import import_lapa as command

    return command.import_lapa(config)


def main() -> None:
    """Entry point of `hlrp-import-lapa`."""
    run_cli(lambda: import_lapa(read_options(ImportLapaConfig)))


if __name__ == "__main__":
    main()
