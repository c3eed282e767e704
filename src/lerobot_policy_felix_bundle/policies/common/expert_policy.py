"""Base class of the policies whose actions come from an action expert."""

from typing import Any

import numpy as np
from jaxtyping import Float
from lerobot.configs import NormalizationMode
from lerobot.utils.constants import ACTION
from torch import Tensor

from hlrp.experts.interface import ActionExpert, ExpertSizes, ObservationTokens

from .action_target import ActionTarget
from .expert_configuration import HLRPExpertConfig
from .modeling import HLRPPolicy
from .real_time_chunking import chunk_guide, make_processor


class HLRPExpertPolicy(HLRPPolicy):
    """Policy with an action expert; a subclass says what the expert observes."""

    config_class = HLRPExpertConfig  # pyright: ignore[reportAssignmentType]
    config: HLRPExpertConfig
    name = "hlrp_expert"  # pyright: ignore[reportAssignmentType]
    expert: ActionExpert

    def _build_expert(
        self,
        dataset_meta: Any | None,
        *,
        feature_dim: int,
        num_tokens: int | None,
        num_codes: int = 0,
        code_dim: int = 0,
    ) -> None:
        """Build the expert; arguments as for `ExpertSizes`."""
        config = self.config
        if dataset_meta is not None and config.action_normalization is NormalizationMode.IDENTITY:
            config.check_expert(largest_action=_largest_action(dataset_meta))
        sizes = ExpertSizes(
            chunk_size=self.chunk_size,
            action_dim=self.action_dim,
            feature_dim=feature_dim,
            num_tokens=num_tokens,
            num_codes=num_codes,
            code_dim=code_dim,
            state_dim=config.state_dim,
        )
        self.expert = config.expert_class(config, sizes, num_inference_steps=config.denoising_steps)
        self.init_rtc_processor()

    def supports_rtc(self) -> bool:
        """Whether LeRobot may use real-time chunking with this policy: whether the expert supports it."""
        return self.config.expert_class.supports_rtc

    def init_rtc_processor(self) -> None:
        """Create the RTC processor from `config.rtc_config`; LeRobot calls this again if it sets that later."""
        self.rtc_processor = make_processor(self.config.rtc_config)

    def _expert_error(
        self,
        target: ActionTarget,
        observation: ObservationTokens,
        codes: Float[Tensor, "b q v"] | None,
        batch: dict[str, Any],
    ) -> Float[Tensor, "b h"]:
        """Error of the expert for every chunk step of a training batch."""
        draws = self.config.noise_draws
        return self.expert.loss(target.actions, observation, codes, self._state(batch), draws=draws)

    def _expert_actions(
        self,
        observation: ObservationTokens,
        codes: Float[Tensor, "b q v"] | None,
        batch: dict[str, Any],
        kwargs: dict[str, Any],
    ) -> Float[Tensor, "b h a"]:
        """Chunks of actions; `kwargs` are those of `predict_action_chunk`."""
        guide = chunk_guide(self.rtc_processor, kwargs) if self.supports_rtc() else None
        return self.expert.act(observation, codes, self._state(batch), noise=kwargs.get("noise"), guide=guide)


def _largest_action(dataset_meta: Any) -> float:
    """Largest absolute value among the dataset's actions; 0 if its statistics do not have it."""
    stats = (dataset_meta.stats or {}).get(ACTION, {})
    return max((float(np.abs(stats[name]).max()) for name in ("min", "max") if name in stats), default=0.0)
