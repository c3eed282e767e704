"""Base class of the policies whose actions come from an action expert."""

import logging
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

logger = logging.getLogger(__name__)

_QUANTILES = {NormalizationMode.QUANTILES: ("q01", "q99"), NormalizationMode.QUANTILE10: ("q10", "q90")}
"""Statistics that become -1 and 1, by mode."""
_EPSILON = 1e-8
"""What LeRobot divides by where both quantiles are the same."""


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
        if dataset_meta is not None:
            self._check_range(dataset_meta)
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

    def _check_range(self, dataset_meta: Any) -> None:
        """Check whether the expert can predict all actions of the dataset, if their normalization does not say so.

        Quantiles are chosen to leave out the outermost actions, so that they are not refused.

        Raises:
            ValueError: If the expert cannot predict the largest actions, and they are not normalized.
        """
        config, mode = self.config, self.config.action_normalization
        if mode is NormalizationMode.IDENTITY:
            config.check_expert(largest_action=_largest_action(dataset_meta))
        elif mode in _QUANTILES:
            try:
                config.check_expert(largest_action=_largest_action(dataset_meta, _QUANTILES[mode]))
            except ValueError as error:
                logger.warning(f"the outermost actions of this dataset are never predicted: {error}")

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


def _largest_action(dataset_meta: Any, ends: tuple[str, str] | None = None) -> float:
    """Largest absolute value among the dataset's actions; 0 if its statistics do not have it.

    `ends` names the statistics that are normalized to -1 and 1; None for actions that are not normalized.
    """
    stats = (dataset_meta.stats or {}).get(ACTION, {})
    if not {"min", "max", *(ends or ())} <= stats.keys():
        return 0.0
    values = np.stack([np.asarray(stats[name], dtype=np.float64) for name in ("min", "max")])
    if ends is not None:
        low, high = (np.asarray(stats[name], dtype=np.float64) for name in ends)
        width = np.where(high > low, high - low, _EPSILON)
        values = (2 * (values - low) / width - 1).round(2)  # quantiles are estimates, a little inside of the extremes
    return float(np.abs(values).max())
