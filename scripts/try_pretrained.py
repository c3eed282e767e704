"""Evaluate the policy of `pretrained/` on a few episodes and write a page about them: `make try`."""

from __future__ import annotations

import sys
from pathlib import Path

from hlrp.cli.common import read_options, run_cli
from hlrp.demo.evaluation_files import success
from hlrp.demo.stages import StageFailed
from hlrp.demo.trial import try_policy
from hlrp.demo.trial_config import TrialConfig


def main(config: TrialConfig) -> None:
    """Run the trial, and print how many episodes were solved and where the page is."""
    try:
        page = try_policy(config)
    except StageFailed as error:
        sys.exit(f"error: {error}")
    found = success(config.evaluation / "eval_info.json")
    print(f"\nsolved {found['success_rate']:.0%} of {found['episodes']} episodes\nreport: {Path(page)}")


if __name__ == "__main__":
    run_cli(lambda: main(read_options(TrialConfig)))
