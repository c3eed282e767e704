"""Pre- and postprocessing of all policies: LeRobot's standard pipelines, with a conversion to float32.

States and actions are converted before normalization. The foundation backend tokenizes instructions and prepares
images, batched on the device.
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
from .run_settings import columns_by_name
from .statistics import require_finite_statistics

FLOAT_STEP = "hlrp_float_vectors_processor"
"""Name of the conversion step in saved pipelines; must not change."""


@dataclass
@ProcessorStepRegistry.register(name=FLOAT_STEP)
class FloatVectorsProcessorStep(ProcessorStep):
    """Processor step that converts states and actions to float32.

    LeRobot's normalizer converts its statistics to the dtype of the data: for integers a standard deviation of 0.8
    becomes 0, and booleans cannot be subtracted at all.
    """

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """Return the transition with state and action as float32, and everything else unchanged."""
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
        """Return the features unchanged, since the step keeps all shapes."""
        return features


def require_float_step(folder: Path, dataset_meta: Any) -> None:
    """Check that the pipelines saved with a policy can process the dtypes of a dataset for fine-tuning.

    Raises:
        ValueError: If the dataset has states or actions that are not float32, and the pipelines do not convert them.
    """
    file = folder / f"{POLICY_PREPROCESSOR_DEFAULT_NAME}.json"
    columns = columns_by_name(dataset_meta)
    dtypes = {
        columns[key]: dataset_meta.features[columns[key]]["dtype"] for key in (OBS_STATE, ACTION) if key in columns
    }
    others = [f"{column!r} ({dtype})" for column, dtype in dtypes.items() if dtype != "float32"]
    if others and file.is_file() and FLOAT_STEP not in file.read_text(encoding="utf-8"):
        raise ValueError(
            f"the pipelines saved in {folder} take float32 alone, and the dataset has {', '.join(others)}; start a new "
            "policy with --policy.type and --policy.vla_checkpoint_path"
        )


def make_processors(
    config: HLRPConfig, dataset_stats: dict[str, Any] | None = None
) -> tuple[PolicyProcessorPipeline[Any, Any], PolicyProcessorPipeline[Any, Any]]:
    """Pre- and postprocessor of a policy.

    The preprocessor renames features, adds a batch axis, moves tensors to the device, converts to float32 and
    normalizes. The postprocessor undoes the normalization of actions and moves them to the CPU.

    Raises:
        ValueError: If statistics that are used for normalization are not finite.
    """
    require_finite_statistics(config, dataset_stats)
    before, after = make_default_pre_post_processors(config, dataset_stats)
    # The normalizer is the last step; the conversion has to come before it.
    before.steps = [*before.steps[:-1], FloatVectorsProcessorStep(), before.steps[-1]]
    return before, after
