"""`hlrp-collect-demos`: Meta-World's scripted experts as a LeRobotDataset, without download or robot."""

from __future__ import annotations

import draccus

from hlrp.cli.common import run_cli
from hlrp.options.collect_demos import CollectDemosConfig


def collect_demos(config: CollectDemosConfig) -> None:
    """Do what `hlrp.commands.collect_demos` describes; its imports take many seconds and so come last."""
    from hlrp.commands import collect_demos as command

    command.collect_demos(config)


def main() -> None:
    """Entry point of `hlrp-collect-demos`."""
    run_cli(lambda: collect_demos(draccus.parse(CollectDemosConfig)))


if __name__ == "__main__":
    main()
