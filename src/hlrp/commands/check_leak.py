"""`hlrp-check-leak`: whether a LeRobot policy can see the future."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lerobot.utils.random_utils import set_seed

from hlrp.commands.lerobot_training import build_training
from hlrp.measure.leak.check import check_leak as check
from hlrp.measure.leak.probe import Probe
from hlrp.measure.leak.result import LeakReport
from hlrp.options.check_leak import CheckLeakConfig
from hlrp.storage.files import write_json

logger = logging.getLogger(__name__)


def check_leak(config: CheckLeakConfig, lerobot_flags: Sequence[str]) -> LeakReport:
    """Build policy and dataset as lerobot-train does, check them, and print the result as a table.

    Args:
        config: Options of the command.
        lerobot_flags: Flags of lerobot-train that name the policy and the dataset.

    Raises:
        FileNotFoundError: If the policy or the dataset does not exist.
        ValueError: If they do not fit, or nothing can be said about them; see `hlrp.measure.leak.check.check_leak`.
    """
    set_seed(config.seed)
    training = build_training(lerobot_flags)
    meta = training.dataset.meta
    probe = Probe(
        training.policy,
        training.preprocessor,
        cameras=meta.camera_keys,
        seed=config.seed,
        has_language_columns=meta.has_language_columns,
    )
    report = check(probe, training.dataset, samples=config.samples, seed=config.seed, target_keys=config.target_keys)
    print(report.table())
    print(f"asked for actions by: {'; '.join(report.ways)}")
    if not report.leaks:
        print(report.sentence)
    if report.blind:
        logger.warning(
            "the action of this policy depends on no observation at t, so that this check says nothing about it; "
            "check a trained policy with --policy.path"
        )
    if config.json is not None:
        write_json(config.json, report.to_dict())
    return report
