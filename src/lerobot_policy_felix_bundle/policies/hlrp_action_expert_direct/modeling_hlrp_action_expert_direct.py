"""`hlrp_action_expert_direct`: a flow-matching expert predicts actions from the foundation VLA's features.

Shapes: b batch, h chunk steps, a action dimensions, r state values.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hlrp.experts.flow import FlowExpert, FlowExpertConfig, early_times
from hlrp.foundation.backends import FoundationLoss, PromptFeatures
from hlrp.foundation.batch import FoundationBatch
from hlrp.training.evaluation_mode import inference

from ..common.labels import batch_labels
from ..common.modeling import HLRPPolicy
from ..common.real_time_chunking import chunk_guide, make_processor
from .configuration_hlrp_action_expert_direct import HLRPActionExpertDirectConfig


class HLRPActionExpertDirectPolicy(HLRPPolicy):
    """Foundation VLA with a flow-matching expert on its features; both are trained, or only the expert."""

    config_class = HLRPActionExpertDirectConfig  # pyright: ignore[reportAssignmentType]
    config: HLRPActionExpertDirectConfig
    name = "hlrp_action_expert_direct"  # pyright: ignore[reportAssignmentType]
    action_modules = ("expert",)

    def __init__(
        self,
        config: HLRPActionExpertDirectConfig,
        dataset_stats: dict[str, Any] | None = None,
        dataset_meta: Any | None = None,
        *,
        checkpoint_dir: Path | None = None,
        **kwargs: Any,
    ) -> None:
        """Build the policy; see `HLRPPolicy`."""
        super().__init__(config, dataset_stats, dataset_meta, checkpoint_dir=checkpoint_dir, **kwargs)
        state = config.robot_state_feature if config.expert_uses_state else None
        self.expert = FlowExpert(
            FlowExpertConfig(width=config.expert_width, layers=config.expert_layers, heads=config.expert_heads),
            feature_dim=self.backend.feature_dim,
            chunk_size=self.chunk_size,
            action_dim=self.action_dim,
            state_dim=None if state is None else state.shape[0],
        )
        self.init_rtc_processor()
        self._compile()
        self.reset()

    @property
    def needs_labels(self) -> bool:
        """Whether training needs latent labels: true if the VLA also learns latent codes."""
        return self._learns_codes

    def supports_rtc(self) -> bool:
        """Whether LeRobot may use real-time chunking with this policy: true, for flow matching supports it."""
        return True

    def init_rtc_processor(self) -> None:
        """Create the RTC processor from `config.rtc_config`; LeRobot calls this again if it sets that later."""
        self.rtc_processor = make_processor(self.config.rtc_config)

    def forward(self, batch: dict[str, Any], reduction: str = "mean") -> tuple[Tensor, dict[str, float]]:
        """Flow-matching loss of the actions, plus the loss on latent codes if `latent_loss_weight` is above 0.

        Args:
            batch: A preprocessed training batch; it is not modified.
            reduction: "mean", or "none" for a loss per sample.

        Returns:
            Loss, a scalar or (b,), and its parts as numbers for the log.

        Raises:
            ValueError: If the batch lacks instructions or required latent labels, or a pixel is not finite.
        """
        inputs, features, latent = self._observe(batch)
        taught = self._actions_known(batch)
        prefix = self.expert.prefix(features.hidden, features.mask, self._state(batch))
        target = self._target(batch, taught)
        time = early_times(len(target), device=target.device)
        error = self.expert.loss(target, prefix, noise=torch.randn_like(target), time=time)
        error = self._over_steps(error, batch, taught)
        return self._add_up(inputs, reduction=reduction, latent=latent, error=error, taught=taught)

    def _observe(self, batch: dict[str, Any]) -> tuple[FoundationBatch, PromptFeatures, FoundationLoss | None]:
        """Inputs and features of the VLA, and its loss on latent codes (None if unused), in one forward pass."""
        if self._learns_codes:
            inputs = self._see(batch, labels=batch_labels(batch, self.labels, self.backend.spec))
            latent = self.backend.loss(inputs)
            return inputs, latent.features, latent
        inputs = self._see(batch)
        return inputs, self.backend.features(inputs), None

    @inference
    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """Actions (b, chunk_size, a) from the current frame; labels and actions in `batch` are ignored.

        Args:
            batch: Observations and instructions.
            **kwargs: `noise` (b, chunk_size, a) to start from; and for real-time chunking `inference_delay`,
                `prev_chunk_left_over` and `execution_horizon`.
        """
        inputs = self._see_to_act(batch)
        features = self.backend.features(inputs)
        prefix = self.expert.prefix(features.hidden, features.mask, self._state(batch))
        noise = kwargs.get("noise")
        if noise is None:
            noise = torch.randn(len(inputs), self.chunk_size, self.action_dim, device=inputs.images.device)
        guide = chunk_guide(self.rtc_processor, kwargs)
        return self.expert.denoise(noise, prefix, steps=self.config.num_denoising_steps, guide=guide)

    def _state(self, batch: dict[str, Any]) -> Float[Tensor, "b r"] | None:
        return None if self.expert.state_dim is None else self._current_state(batch)
