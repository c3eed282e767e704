"""`hlrp_action_expert_direct`: a flow-matching expert reads the foundation VLA's features and writes actions.

Shapes: b batch, h chunk steps, a action dimensions, r state values.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lerobot.policies.rtc.modeling_rtc import RTCProcessor
from lerobot.utils.constants import ACTION
from torch import Tensor

from hlrp.experts.flow_expert import FlowExpert, FlowExpertConfig, Velocity
from hlrp.foundation.backends import FoundationLoss, PromptFeatures
from hlrp.foundation.batch import FoundationBatch, require_finite

from ..common.label_table import batch_labels
from ..common.logging_values import masked_mean, to_floats
from ..common.modeling import HLRPPolicy
from ..common.observations import foundation_batch
from .configuration_hlrp_action_expert_direct import HLRPActionExpertDirectConfig


class HLRPActionExpertDirectPolicy(HLRPPolicy):
    """Foundation VLA and flow-matching expert, trained together or the expert alone."""

    config_class = HLRPActionExpertDirectConfig  # pyright: ignore[reportAssignmentType]
    config: HLRPActionExpertDirectConfig
    name = "hlrp_action_expert_direct"  # pyright: ignore[reportAssignmentType]
    chunk_ends_with_label = False

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
            chunk_size=config.chunk_size,
            action_dim=self.action_dim,
            state_dim=None if state is None else state.shape[0],
        )
        self.init_rtc_processor()
        self.reset()

    def supports_rtc(self) -> bool:
        """Real-time chunking guides every denoising step."""
        return True

    def init_rtc_processor(self) -> None:
        """Take over `config.rtc_config`, which LeRobot may set after the policy was loaded."""
        self.rtc_processor = None if self.config.rtc_config is None else RTCProcessor(self.config.rtc_config)

    def forward(self, batch: dict[str, Any], reduction: str = "mean") -> tuple[Tensor, dict[str, float]]:
        """Flow-matching error of the actions, plus cross-entropy of the codes where that has a weight.

        Args:
            batch: A preprocessed training batch; it is not changed.
            reduction: "mean", or "none" for a loss per sample.

        Returns:
            Loss, a scalar or (b,), and its parts as numbers.

        Raises:
            ValueError: If the batch has no instruction, no labels that the latent loss needs, or a pixel is not finite.
        """
        inputs, features, latent = self._observe(batch)
        known = self._actions_known(batch)
        prefix = self.expert.prefix(features.hidden, features.mask, self._state(batch))
        target = batch[ACTION].float()
        noise = torch.randn_like(target)
        # Early, noisy times decide most; Beta(1.5, 1) draws more of them, as in pi0.
        time = 0.001 + 0.999 * torch.rand(len(target), device=target.device).pow(1 / 1.5)
        error = self._over_steps(self.expert.loss(target, prefix, noise=noise, time=time), batch, known)
        config = self.config
        loss = config.action_loss_weight * masked_mean(error, known)
        per_sample = config.action_loss_weight * error
        values = {
            "action_loss": masked_mean(error, known),
            "action_share": known.float().mean(),
            "finite": torch.isfinite(inputs.images).all(),
        }
        if latent is not None:
            loss = loss + config.latent_loss_weight * latent.loss
            per_sample = per_sample + config.latent_loss_weight * latent.per_sample
            values |= {
                "latent_loss": latent.loss,
                "code_accuracy": latent.accuracy.mean(),
                "labelled_share": latent.counted.float().mean(),
            }
        numbers = to_floats(values)
        if not numbers.pop("finite"):
            require_finite(inputs.images)
        return (per_sample if reduction == "none" else loss), numbers

    def _observe(self, batch: dict[str, Any]) -> tuple[FoundationBatch, PromptFeatures, FoundationLoss | None]:
        """Inputs and features of the VLM, and its latent loss where that counts; one forward pass."""
        if self.config.latent_loss_weight > 0:
            codes, valid = batch_labels(batch, self.labels, self.backend.spec)
            inputs = foundation_batch(batch, self.config.image_features, codes=codes, valid=valid)
            latent = self.backend.loss(inputs)
            return inputs, latent.features, latent
        inputs = foundation_batch(batch, self.config.image_features)
        return inputs, self.backend.features(inputs), None

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """Actions (b, chunk_size, a) from the current frame; labels and actions in `batch` are not looked at.

        Args:
            batch: Observation and instruction.
            **kwargs: `noise` (b, chunk_size, a) to start from; and of real-time chunking `inference_delay`,
                `prev_chunk_left_over` and `execution_horizon`.
        """
        self.eval()
        inputs = foundation_batch(batch, self.config.image_features)
        require_finite(inputs.images)
        features = self.backend.features(inputs)
        prefix = self.expert.prefix(features.hidden, features.mask, self._state(batch))
        noise = kwargs.get("noise")
        if noise is None:
            noise = torch.randn(len(inputs), self.config.chunk_size, self.action_dim, device=inputs.images.device)
        guide = None
        rtc = self.rtc_processor
        if rtc is not None and rtc.rtc_config.enabled:
            guide = partial(_guided, rtc, kwargs)
        return self.expert.denoise(noise, prefix, steps=self.config.num_denoising_steps, guide=guide)

    def _state(self, batch: dict[str, Any]) -> Float[Tensor, "b r"] | None:
        return None if self.expert.state_dim is None else self._current_state(batch)


def _guided(
    rtc: RTCProcessor, kwargs: dict[str, Any], chunk: Float[Tensor, "b h a"], time: float, velocity: Velocity
) -> Float[Tensor, "b h a"]:
    """The velocity that continues the chunk being executed."""
    return rtc.denoise_step(
        x_t=chunk,
        prev_chunk_left_over=kwargs.get("prev_chunk_left_over"),
        inference_delay=kwargs.get("inference_delay", 0),
        time=time,
        original_denoise_step_partial=lambda x: velocity(x, time),
        execution_horizon=kwargs.get("execution_horizon"),
    )
