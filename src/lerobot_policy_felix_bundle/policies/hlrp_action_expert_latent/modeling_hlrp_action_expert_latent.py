"""`hlrp_action_expert_latent`: the foundation VLA predicts latent codes, an expert turns picture, state and codes into
actions.

Shapes: b batch, v cameras, c codes of one label, h chunk steps, a action dimensions, r state values, g condition width,
q image features, l tokens of width d.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from lerobot.utils.constants import ACTION
from torch import Tensor, nn

from hlrp.experts.code_decoder import CodeVectors
from hlrp.experts.diffusion_expert import DiffusionExpert, DiffusionExpertConfig
from hlrp.experts.eyes import Eyes
from hlrp.experts.flow_expert import FlowExpert, FlowExpertConfig
from hlrp.foundation.batch import FoundationBatch, require_finite

from ..common.label_table import batch_labels
from ..common.logging_values import masked_mean, to_floats
from ..common.modeling import HLRPPolicy
from ..common.observations import foundation_batch
from .configuration_hlrp_action_expert_latent import HLRPActionExpertLatentConfig


class HLRPActionExpertLatentPolicy(HLRPPolicy):
    """Foundation VLA as planner, diffusion or flow-matching expert as hand."""

    config_class = HLRPActionExpertLatentConfig  # pyright: ignore[reportAssignmentType]
    config: HLRPActionExpertLatentConfig
    name = "hlrp_action_expert_latent"  # pyright: ignore[reportAssignmentType]
    steps_trained: Int[Tensor, ""]

    def __init__(
        self,
        config: HLRPActionExpertLatentConfig,
        dataset_stats: dict[str, Any] | None = None,
        dataset_meta: Any | None = None,
        *,
        checkpoint_dir: Path | None = None,
        **kwargs: Any,
    ) -> None:
        """Build the policy; see `HLRPPolicy`."""
        super().__init__(config, dataset_stats, dataset_meta, checkpoint_dir=checkpoint_dir, **kwargs)
        state = config.robot_state_feature if config.expert_uses_state else None
        self.state_dim = None if state is None else state.shape[0]
        self.codes = CodeVectors(self.backend.spec)
        if self.labels is not None:
            self.codes.use_codebook(self.labels.codebook)
        self.eyes = nn.ModuleList(
            Eyes(config.vision_backbone, config.expert_image_size, keypoints=config.spatial_softmax_num_keypoints)
            for _ in config.image_features
        )
        self.expert = self._build_expert()
        # Counted to know how far the schedule of predicted codes has come; saved, so that a resumed run goes on.
        self.register_buffer("steps_trained", torch.zeros((), dtype=torch.int64))
        self.reset()

    def _build_expert(self) -> DiffusionExpert | FlowExpert:
        config = self.config
        seen = 2 * config.spatial_softmax_num_keypoints
        if config.expert == "flow":
            return FlowExpert(
                FlowExpertConfig(width=config.expert_width, layers=config.expert_layers, heads=config.expert_heads),
                feature_dim=seen + self.backend.spec.code_dim,
                chunk_size=config.chunk_size,
                action_dim=self.action_dim,
                state_dim=self.state_dim,
            )
        return DiffusionExpert(
            DiffusionExpertConfig(
                down_dims=config.down_dims,
                noise_scheduler_type=config.noise_scheduler_type,
                num_train_timesteps=config.num_train_timesteps,
                num_inference_steps=config.num_inference_steps,
            ),
            condition_dim=len(self.eyes) * seen + (self.state_dim or 0) + self.codes.width,
            chunk_size=config.chunk_size,
            action_dim=self.action_dim,
        )

    def reset(self) -> None:
        """Forget the actions still to be executed, and the plan."""
        super().reset()
        self._plan: Tensor | None = None
        self._chunks_of_plan = 0

    def forward(self, batch: dict[str, Any], reduction: str = "mean") -> tuple[Tensor, dict[str, float]]:
        """Error of the expert under the codes of the labels or, by schedule, the predicted ones; and of the codes.

        Args:
            batch: A preprocessed training batch; it is not changed.
            reduction: "mean", or "none" for a loss per sample.

        Returns:
            Loss, a scalar or (b,), and its parts as numbers.

        Raises:
            ValueError: If the batch has no labels or instruction, or a pixel is not finite.
        """
        labels, valid = batch_labels(batch, self.labels, self.backend.spec)
        inputs = foundation_batch(batch, self.config.image_features, codes=labels, valid=valid)
        latent = self.backend.loss(inputs)
        taught = latent.counted & self._actions_known(batch)
        codes, predicted = self._training_codes(inputs, labels.clamp_min(0))
        error = self._over_steps(self._expert_error(batch[ACTION].float(), inputs, batch, codes), batch, taught)
        action_loss = masked_mean(error, taught)
        config = self.config
        loss = config.latent_loss_weight * latent.loss + config.action_loss_weight * action_loss
        per_sample = config.latent_loss_weight * latent.per_sample + config.action_loss_weight * error
        numbers = to_floats(
            {
                "latent_loss": latent.loss,
                "action_loss": action_loss,
                "code_accuracy": latent.accuracy.mean(),
                "labelled_share": latent.counted.float().mean(),
                "action_share": taught.float().mean(),
                "predicted_share": predicted.float().mean(),
                "finite": torch.isfinite(inputs.images).all(),
            }
        )
        if not numbers.pop("finite"):
            require_finite(inputs.images)
        return (per_sample if reduction == "none" else loss), numbers

    def _training_codes(
        self, inputs: FoundationBatch, labels: Int[Tensor, "b c"]
    ) -> tuple[Int[Tensor, "b c"], Bool[Tensor, " b"]]:
        """Codes that the expert is shown, and which of them are predictions."""
        predicted = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
        if self.config.predicted_codes == 0 or not self.training:
            return labels, predicted
        self.steps_trained += 1
        grown = (self.steps_trained / self.config.predicted_codes_after).clamp_max(1)
        predicted = torch.rand(len(labels), device=labels.device) < self.config.predicted_codes * grown
        with torch.no_grad():
            own = self.backend.predict(inputs).codes
        return torch.where(predicted[:, None], own, labels), predicted

    def _expert_error(
        self, actions: Float[Tensor, "b h a"], inputs: FoundationBatch, batch: dict[str, Any], codes: Int[Tensor, "b c"]
    ) -> Float[Tensor, "b h"]:
        features = self._seen(inputs)
        if isinstance(self.expert, DiffusionExpert):
            return self.expert.loss(actions, self._condition(features, batch, codes))
        prefix = self.expert.prefix(*self._tokens(features, codes), self._state(batch))
        time = 0.001 + 0.999 * torch.rand(len(actions), device=actions.device).pow(1 / 1.5)
        return self.expert.loss(actions, prefix, noise=torch.randn_like(actions), time=time)

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """Actions (b, chunk_size, a) from the current frame; labels and actions in `batch` are not looked at.

        Args:
            batch: Observation and instruction.
            **kwargs: `codes` (b, c) to carry out instead of planning; `noise` (b, chunk_size, a) to start from.
        """
        self.eval()
        inputs = foundation_batch(batch, self.config.image_features)
        require_finite(inputs.images)
        codes, noise = kwargs.get("codes"), kwargs.get("noise")
        if codes is None:
            codes = self.backend.predict(inputs).codes
        features = self._seen(inputs)
        if isinstance(self.expert, DiffusionExpert):
            return self.expert.denoise(self._condition(features, batch, codes), noise=noise)
        prefix = self.expert.prefix(*self._tokens(features, codes), self._state(batch))
        if noise is None:
            noise = torch.randn(len(codes), self.config.chunk_size, self.action_dim, device=codes.device)
        return self.expert.denoise(noise, prefix, steps=self.config.num_inference_steps)

    def _next_chunk(self, batch: dict[str, Any]) -> Tensor:
        """A chunk from the plan, which the VLA renews every `replan_every` chunks."""
        if self._plan is None or self._chunks_of_plan % self.config.replan_every == 0:
            self._plan = self.backend.predict(foundation_batch(batch, self.config.image_features)).codes
        self._chunks_of_plan += 1
        return self.predict_action_chunk(batch, codes=self._plan)

    def _seen(self, inputs: FoundationBatch) -> Float[Tensor, "b v q"]:
        """What the expert's own eyes report of every camera."""
        size = self.config.expert_image_size
        images = rearrange(inputs.images, "b v c h w -> (b v) c h w")
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        by_camera = rearrange(images, "(b v) c h w -> v b c h w", b=len(inputs))
        return torch.stack([eye(view) for eye, view in zip(self.eyes, by_camera, strict=True)], dim=1)

    def _condition(
        self, features: Float[Tensor, "b v q"], batch: dict[str, Any], codes: Int[Tensor, "b c"]
    ) -> Float[Tensor, "b g"]:
        state = self._state(batch)
        parts = [features.flatten(1), self.codes(codes).flatten(1), *([] if state is None else [state])]
        return torch.cat(parts, dim=1)

    def _tokens(
        self, features: Float[Tensor, "b v q"], codes: Int[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b l d"], Bool[Tensor, "b l"]]:
        """One token per camera and per code; each kind has channels of its own."""
        vectors = self.codes(codes)
        tokens = torch.cat([F.pad(features, (0, vectors.shape[-1])), F.pad(vectors, (features.shape[-1], 0))], dim=1)
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)

    def _state(self, batch: dict[str, Any]) -> Float[Tensor, "b r"] | None:
        return None if self.state_dim is None else self._current_state(batch)
