"""Options and entry point of `hlrp-collect-demos`, which records Meta-World's scripted experts as a LeRobotDataset."""

from __future__ import annotations

from hlrp.cli.common import read_options, run_cli
from hlrp.options.collect_demos import CollectDemosConfig


def collect_demos(config: CollectDemosConfig) -> None:
    """Record the dataset. LeRobot is imported here and not at the top, so that `--help` does not wait for it."""
    from hlrp.commands import collect_demos as command

    command.collect_demos(config)


def main() -> None:
    """Entry point of `hlrp-collect-demos`."""
    run_cli(lambda: collect_demos(read_options(CollectDemosConfig)))


if __name__ == "__main__":
    main()
