"""Options and entry point of `hlrp-view-labels`, which shows latent labels along the video."""

from __future__ import annotations

from pathlib import Path

from hlrp.cli.common import read_options, run_cli
from hlrp.options.view_labels import ViewLabelsConfig


def view_labels(config: ViewLabelsConfig) -> Path:
    """Write the page; torch is imported here and not at the top, so that `--help` does not wait for it."""
    from hlrp.commands import view_labels as command

    return command.view_labels(config)


def main() -> None:
    """Entry point of `hlrp-view-labels`."""
    run_cli(lambda: view_labels(read_options(ViewLabelsConfig)))


if __name__ == "__main__":
    main()
