"""State of the robot at time t, as input of an action head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from lerobot.utils.constants import OBS_STATE
from torch import Tensor

from .configuration import HLRPConfig
from .observations import current, one_value_per_sample


def robot_state(batch: Mapping[str, Any], config: HLRPConfig, *, check_finite: bool) -> Float[Tensor, "b r"]:
    """Normalized state of the robot at time t.

    Args:
        batch: A preprocessed batch.
        config: Configuration of the policy.
        check_finite: Refuse NaN and infinite values; this waits for the device.

    Raises:
        ValueError: If the batch has no state or one of another width, or a checked value is not finite.
    """
    if OBS_STATE not in batch:
        raise ValueError(
            f"the batch lacks {OBS_STATE!r}, which this policy was trained with; train with --policy."
            f"{config.state_option}=false to do without"
        )
    state, feature = batch[OBS_STATE], config.robot_state_feature
    if feature is not None and feature.shape == (1,):
        state = one_value_per_sample(state, len(batch[next(iter(config.image_features))]))
    state = current(state, ndim=2)
    if feature is not None and state.shape[1] != feature.shape[0]:
        raise ValueError(
            f"{OBS_STATE!r} has {state.shape[1]} values, and this policy was trained with {feature.shape[0]}; "
            "fine-tune it on data of this robot"
        )
    if check_finite and not bool(torch.isfinite(state).all()):
        raise ValueError(f"{OBS_STATE!r} holds NaN or infinite values; check the robot's sensors, or the dataset")
    return state
