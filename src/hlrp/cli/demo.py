"""Entry point of `hlrp-demo`: the whole pipeline, from recording to an evaluated policy, on a laptop and offline."""

from __future__ import annotations

from pathlib import Path

from hlrp.cli.common import read_options, run_cli
from hlrp.demo.config import DemoConfig
from hlrp.runtime.extras import require_packages


def demo(config: DemoConfig) -> Path:
    """Run the demo and return the path of its report; torch is imported here, so that `--help` does not wait for it."""
    require_packages("metaworld", "psutil", needed_for="the demo")
    from hlrp.commands import demo as command

    return command.demo(config)


def main() -> None:
    """Entry point of `hlrp-demo`."""
    run_cli(lambda: demo(read_options(DemoConfig)), when_stopped="; the same command continues where it stopped")


if __name__ == "__main__":
    main()
