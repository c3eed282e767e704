"""Policy, dataset and preprocessor as lerobot-train builds them from its flags, without training anything."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lerobot.configs import parser
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.factory import make_dataset
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.factory import make_policy, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION
from lerobot.utils.import_utils import register_third_party_plugins


@dataclass(frozen=True)
class Training:
    """Policy, dataset and preprocessor with which a training run starts."""

    policy: PreTrainedPolicy
    dataset: LeRobotDataset
    preprocessor: Callable[[dict[str, Any]], dict[str, Any]]


def build_training(flags: Sequence[str]) -> Training:
    """Build policy, dataset and preprocessor from flags of lerobot-train.

    Raises:
        FileNotFoundError: If the policy or the dataset does not exist.
        ValueError: If a flag is missing or wrong, or the dataset is streamed or has no actions.
    """
    register_third_party_plugins()
    # LeRobot and the policies read --policy.path and --rename_map from the command line of the process.
    with _command_line(*flags, "--policy.push_to_hub=false"):
        return _build(_read(flags))


def _build(config: TrainPipelineConfig) -> Training:
    if config.policy is None or config.dataset.streaming:
        what = "--dataset.streaming=true" if config.dataset.streaming else "no policy"
        raise ValueError(f"expected a policy and a dataset that is read from its folder, got {what}")
    dataset = make_dataset(config)
    assert isinstance(dataset, LeRobotDataset), "LeRobot makes no other dataset that is not streamed"
    if ACTION not in dataset.meta.features:
        raise ValueError(f"the dataset {config.dataset.repo_id} has no actions, which a policy is trained on")
    policy = make_policy(cfg=config.policy, ds_meta=dataset.meta, rename_map=config.rename_map)
    saved = config.policy.pretrained_path
    arguments: dict[str, Any] = {"dataset_stats": dataset.meta.stats, **_overrides(config, policy, dataset)}
    preprocessor, _ = make_pre_post_processors(config.policy, None if saved is None else str(saved), **arguments)
    return Training(policy, dataset, preprocessor)


def _read(flags: Sequence[str]) -> TrainPipelineConfig:
    """The configuration that lerobot-train would read from `flags`."""

    for names in (("--policy.type", "--policy.path"), ("--dataset.repo_id",)):
        if not any(parser.parse_arg(name.removeprefix("--"), flags) for name in names):
            raise ValueError(f"{' or '.join(names)} is missing; name policy and dataset as for lerobot-train")
    whole: Any = lambda cfg: cfg  # noqa: E731  LeRobot wants a function with the class itself as annotation
    whole.__annotations__["cfg"] = TrainPipelineConfig
    try:
        config: TrainPipelineConfig = parser.wrap()(whole)()
    except SystemExit as end:  # LeRobot has printed the reason; 1 is the status of a policy that leaks
        raise SystemExit(2 if end.code == 1 else end.code) from end
    config.validate()
    return config


def _overrides(config: TrainPipelineConfig, policy: PreTrainedPolicy, dataset: LeRobotDataset) -> dict[str, Any]:
    """What lerobot-train changes in the saved preprocessor of a policy that is trained further."""
    if config.policy is None or config.policy.pretrained_path is None:
        return {}
    settings: Any = policy.config  # every policy has a `normalization_mapping`, which the base class does not declare
    features = {**(settings.input_features or {}), **(settings.output_features or {})}
    normalizer = {"features": features, "norm_map": settings.normalization_mapping, "stats": dataset.meta.stats}
    return {
        "preprocessor_overrides": {
            "device_processor": {"device": settings.device},
            "normalizer_processor": normalizer,
            "rename_observations_processor": {"rename_map": config.rename_map},
        }
    }


@contextmanager
def _command_line(*arguments: str) -> Iterator[None]:
    before = sys.argv
    sys.argv = [before[0], *arguments]
    try:
        yield
    finally:
        sys.argv = before
