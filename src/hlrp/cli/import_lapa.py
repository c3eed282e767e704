"""`hlrp-import-lapa`: LAPA's released quantizer as a checkpoint of ours, to label any dataset with."""

from __future__ import annotations

from typing import Any

import draccus

from hlrp.cli.common import run_cli
from hlrp.options.import_lapa import ImportLapaConfig


def import_lapa(config: ImportLapaConfig) -> Any:
    """Do what `hlrp.commands.import_lapa` describes; its imports take many seconds and so come last."""
    from hlrp.commands import import_lapa as command

    return command.import_lapa(config)


def main() -> None:
    """Entry point."""
    run_cli(lambda: import_lapa(draccus.parse(ImportLapaConfig)))


if __name__ == "__main__":
    main()
