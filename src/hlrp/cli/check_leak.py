"""Entry point of `hlrp-check-leak`, which says whether a LeRobot policy can see the future."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hlrp.cli.common import read_options, run_cli
from hlrp.options.check_leak import CheckLeakConfig, split_flags


def check_leak(config: CheckLeakConfig, lerobot_flags: Sequence[str]) -> Any:
    """Check the policy; torch is imported here and not at the top, so that `--help` does not wait for it."""
    from hlrp.commands import check_leak as command

    return command.check_leak(config, lerobot_flags)


def _check() -> None:
    own, lerobot_flags = split_flags(sys.argv[1:])
    report = check_leak(read_options(CheckLeakConfig, args=own), lerobot_flags)
    if report.leaks:
        sys.exit(report.sentence)


def main() -> None:
    """Entry point of `hlrp-check-leak`; the exit status is 1, after one sentence on stderr, if the policy leaks."""
    run_cli(_check)


if __name__ == "__main__":
    main()
