"""`hlrp-demo`: from recorded episodes to an evaluated robot policy, on a laptop, without downloads."""

from __future__ import annotations

from pathlib import Path

import draccus

from hlrp.cli.common import run_cli
from hlrp.demo.config import DemoConfig
from hlrp.runtime.extras import require_packages


def demo(config: DemoConfig) -> Path:
    """Do what `hlrp.commands.demo` describes; its imports take many seconds and so come last."""
    require_packages("metaworld", "psutil", needed_for="the demo")
    from hlrp.commands import demo as command

    return command.demo(config)


def main() -> None:
    """Entry point."""
    run_cli(lambda: demo(draccus.parse(DemoConfig)), when_stopped="; the same command continues where it stopped")


if __name__ == "__main__":
    main()
