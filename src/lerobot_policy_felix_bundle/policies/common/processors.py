"""The pipelines of every policy: LeRobot's standard ones, with states and actions as float32 before normalization.

Language and pixels are prepared by the foundation backend, batched on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lerobot.configs import PipelineFeatureType, PolicyFeature
from lerobot.processor import (
    EnvTransition,
    PolicyProcessorPipeline,
    ProcessorStep,
    ProcessorStepRegistry,
    TransitionKey,
    make_default_pre_post_processors,
)
from lerobot.utils.constants import ACTION, OBS_STATE, POLICY_PREPROCESSOR_DEFAULT_NAME
from torch import Tensor

from .configuration import HLRPConfig
from .statistics import require_finite_statistics

FLOAT_STEP = "hlrp_float_vectors_processor"


@dataclass
@ProcessorStepRegistry.register(name=FLOAT_STEP)
class FloatVectorsProcessorStep(ProcessorStep):
    """States and actions as float32.

    LeRobot's normalizer brings its statistics to the type of what it normalizes: a standard deviation of 0.8 becomes 0
    for integers, and booleans cannot be subtracted at all.
    """

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """The transition with its state and action as float32; everything else as it came."""
        changed: dict[Any, Any] = {**transition}
        observation, action = changed.get(TransitionKey.OBSERVATION), changed.get(TransitionKey.ACTION)
        if observation is not None and isinstance(observation.get(OBS_STATE), Tensor):
            changed[TransitionKey.OBSERVATION] = {**observation, OBS_STATE: observation[OBS_STATE].float()}
        if isinstance(action, Tensor):
            changed[TransitionKey.ACTION] = action.float()
        return cast(EnvTransition, changed)

    def transform_features(
        self, features: dict[PipelineFeatureType, dict[str, PolicyFeature]]
    ) -> dict[PipelineFeatureType, dict[str, PolicyFeature]]:
        """The features as they are: shapes stay."""
        return features


def require_float_step(folder: Path, dataset_meta: Any) -> None:
    """Check that the pipelines saved with a policy suit the types of the dataset it is trained on next.

    Raises:
        ValueError: If the dataset has states or actions that are not float32, and the pipelines do not convert them.
    """
    file = folder / f"{POLICY_PREPROCESSOR_DEFAULT_NAME}.json"
    others = [
        f"{key!r} ({dataset_meta.features[key]['dtype']})"
        for key in (OBS_STATE, ACTION)
        if key in dataset_meta.features and dataset_meta.features[key]["dtype"] != "float32"
    ]
    if others and file.is_file() and FLOAT_STEP not in file.read_text(encoding="utf-8"):
        raise ValueError(
            f"the pipelines saved in {folder} take float32 alone, and the dataset has {', '.join(others)}; start a new "
            "policy with --policy.type and --policy.vla_checkpoint_path"
        )


def make_processors(
    config: HLRPConfig, dataset_stats: dict[str, Any] | None = None
) -> tuple[PolicyProcessorPipeline[Any, Any], PolicyProcessorPipeline[Any, Any]]:
    """Rename, batch, move, float32, normalize; and on the way out unnormalize, move to the CPU.

    Raises:
        ValueError: If statistics that would be used are not finite.
    """
    require_finite_statistics(config, dataset_stats)
    before, after = make_default_pre_post_processors(config, dataset_stats)
    before.steps = [*before.steps[:-1], FloatVectorsProcessorStep(), before.steps[-1]]
    return before, after
