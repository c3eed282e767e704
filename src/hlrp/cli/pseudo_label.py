"""Options and entry point of `hlrp-pseudo-label`, which fills in the actions of frames without actions."""

from __future__ import annotations

from typing import Any

from hlrp.cli.common import read_options, run_cli
from hlrp.options.pseudo_label import PseudoLabelConfig


def pseudo_label(config: PseudoLabelConfig) -> Any:
    """Fill in the actions; torch is imported here and not at the top, so that `--help` does not wait for it."""
    from hlrp.commands import pseudo_label as command

    return command.pseudo_label(config)


def main() -> None:
    """Entry point of `hlrp-pseudo-label`."""
    run_cli(lambda: pseudo_label(read_options(PseudoLabelConfig)))


if __name__ == "__main__":
    main()
