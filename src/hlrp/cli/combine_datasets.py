"""Options and entry point of `hlrp-combine-datasets`, which adds films and other datasets to a dataset with actions."""

from __future__ import annotations

from hlrp.cli.common import read_options, run_cli
from hlrp.options.combine_datasets import CombineDatasetsConfig


def combine_datasets(config: CombineDatasetsConfig) -> None:
    """Combine the datasets. LeRobot is imported here and not at the top, so that `--help` does not wait for it."""
    from hlrp.commands import combine_datasets as command

    command.combine_datasets(config)


def main() -> None:
    """Entry point of `hlrp-combine-datasets`."""
    run_cli(lambda: combine_datasets(read_options(CombineDatasetsConfig)))


if __name__ == "__main__":
    main()
