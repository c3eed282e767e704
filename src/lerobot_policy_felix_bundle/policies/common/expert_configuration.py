"""Base configuration of the policies whose actions come from an action expert.

This file must not use `from __future__ import annotations`, because LeRobot reads the types of the fields.
"""

import math
from dataclasses import dataclass

from lerobot.configs import NormalizationMode
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from hlrp.experts.interface import ActionExpert
from hlrp.runtime.checks import raises_parsing_errors, require_numbers
from hlrp.runtime.size_limits import MOST_NOISE_DRAWS

from .configuration import HLRPConfig

_LARGEST_ACTION = {NormalizationMode.MEAN_STD: math.inf, NormalizationMode.IDENTITY: 0.0}
"""Largest absolute normalized action: IDENTITY depends on the dataset, and all other modes normalize to [-1, 1]. The
modes of quantiles normalize the outermost actions to numbers beyond, as far as the dataset says."""


@dataclass
class HLRPExpertConfig(HLRPConfig):
    """Options of the policies whose actions come from an action expert."""

    chunk_size: int | None = 16
    """Actions predicted at once. None: the number of frames that one latent action spans."""
    expert_uses_state: bool = True
    """Give the expert the robot's state, if the dataset has one."""
    noise_draws: int = 1
    """Noisy chunks that the expert learns to denoise for every training sample. They share the work of reading the
    images, so that they cost less than larger batches."""
    rtc_config: RTCConfig | None = None
    """Options of real-time chunking (arXiv:2506.07339), which keeps successive chunks consistent, for the flow expert.
    LeRobot sets them."""

    @raises_parsing_errors
    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(self, "noise_draws", at_least=1, limit=MOST_NOISE_DRAWS)
        self.check_expert(largest_action=_LARGEST_ACTION.get(self.action_normalization, 1.0))

    @property
    def expert_class(self) -> type[ActionExpert]:
        """Class of the action expert."""
        raise NotImplementedError

    @property
    def denoising_steps(self) -> int | None:
        """Denoising steps of the expert at inference; None for the expert's own number."""
        raise NotImplementedError

    @property
    def action_normalization(self) -> NormalizationMode:
        """Normalization of actions."""
        return self.normalization_mapping.get("ACTION", NormalizationMode.IDENTITY)

    def check_expert(self, *, largest_action: float) -> None:
        """Check the options of the expert; see `ActionExpert.check`."""
        self.expert_class.check(self, num_inference_steps=self.denoising_steps, largest_action=largest_action)
