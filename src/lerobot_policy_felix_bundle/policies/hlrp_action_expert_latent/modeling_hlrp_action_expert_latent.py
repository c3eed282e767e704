"""`hlrp_action_expert_latent`: the foundation VLA predicts latent codes, and an expert maps images, state and codes to
actions.

Shapes: b batch, v cameras, c codes of one label, h chunk steps, a action dimensions, r state values, g condition width,
q image features, l tokens of width d.
"""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from lerobot.configs import NormalizationMode
from lerobot.utils.constants import ACTION
from torch import Tensor, nn

from hlrp.experts.code_decoder import CodeVectors
from hlrp.experts.diffusion import DiffusionExpert, DiffusionExpertConfig
from hlrp.experts.flow import FlowExpert, FlowExpertConfig, early_times
from hlrp.experts.image_encoder import Eyes
from hlrp.foundation.augment import random_shift
from hlrp.foundation.batch import FoundationBatch
from hlrp.training.evaluation_mode import inference
from hlrp.training.row_draws import RowDraws

from ..common.fine_tuning import cameras_of
from ..common.labels import batch_labels
from ..common.modeling import HLRPPolicy
from ..common.observations import camera_images
from ..common.real_time_chunking import chunk_guide, make_processor
from .configuration_hlrp_action_expert_latent import HLRPActionExpertLatentConfig


class HLRPActionExpertLatentPolicy(HLRPPolicy):
    """Foundation VLA that predicts latent codes, with a diffusion or flow-matching expert that predicts actions."""

    config_class = HLRPActionExpertLatentConfig  # pyright: ignore[reportAssignmentType]
    config: HLRPActionExpertLatentConfig
    name = "hlrp_action_expert_latent"  # pyright: ignore[reportAssignmentType]
    action_modules = ("expert", "eyes", "codes")
    steps_trained: Int[Tensor, ""]
    """Training batches so far, on which the share of predicted codes depends."""

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
        if dataset_meta is not None:
            _require_actions_within_clip(config, dataset_meta)
        if not config.latent_conditioning:
            self.backend.requires_grad_(False)
        state = config.robot_state_feature if config.expert_uses_state else None
        self.state_dim = None if state is None else state.shape[0]
        self.codes = CodeVectors(self.backend.spec, learned_width=config.latent_embed_dim)
        if self.labels is not None:
            self.codes.use_codebook(self.labels.codebook)
        self.eyes = nn.ModuleList(
            Eyes(config.vision_backbone, config.expert_image_size, keypoints=config.spatial_softmax_num_keypoints)
            for _ in config.image_features
        )
        self.expert = self._new_flow_expert() if config.expert == "flow" else self._new_diffusion_expert()
        # A buffer, so that it is saved and a resumed run continues the schedule of predicted codes.
        self.register_buffer("steps_trained", torch.zeros((), dtype=torch.int64))
        self.init_rtc_processor()
        self._compile()
        self.reset()

    @property
    def needs_labels(self) -> bool:
        """Whether training needs latent labels: true unless `latent_conditioning` is off."""
        return self.config.latent_conditioning

    @property
    def actions_need_codes(self) -> bool:
        """Whether actions can be learned only on frames with codes: true unless `latent_conditioning` is off."""
        return self.config.latent_conditioning

    def _new_flow_expert(self) -> FlowExpert:
        config = self.config
        code_width = self.codes.codebook.shape[-1] if config.latent_conditioning else 0
        return FlowExpert(
            FlowExpertConfig(width=config.expert_width, layers=config.expert_layers, heads=config.expert_heads),
            feature_dim=2 * config.spatial_softmax_num_keypoints + code_width,
            chunk_size=self.chunk_size,
            action_dim=self.action_dim,
            state_dim=self.state_dim,
        )

    def _new_diffusion_expert(self) -> DiffusionExpert:
        config = self.config
        seen = len(self.eyes) * 2 * config.spatial_softmax_num_keypoints
        told = self.codes.width if config.latent_conditioning else 0
        return DiffusionExpert(
            DiffusionExpertConfig(
                down_dims=config.down_dims,
                kernel_size=config.kernel_size,
                n_groups=config.n_groups,
                diffusion_step_embed_dim=config.diffusion_step_embed_dim,
                use_film_scale_modulation=config.use_film_scale_modulation,
                noise_scheduler_type=config.noise_scheduler_type,
                num_train_timesteps=config.num_train_timesteps,
                beta_schedule=config.beta_schedule,
                beta_start=config.beta_start,
                beta_end=config.beta_end,
                prediction_type=config.prediction_type,
                clip_sample=config.clip_sample,
                clip_sample_range=config.clip_sample_range,
                num_inference_steps=config.num_inference_steps,
            ),
            condition_dim=seen + (self.state_dim or 0) + told,
            chunk_size=self.chunk_size,
            action_dim=self.action_dim,
        )

    def supports_rtc(self) -> bool:
        """Whether LeRobot may use real-time chunking with this policy: only the flow expert supports it."""
        return self.config.expert == "flow"

    def init_rtc_processor(self) -> None:
        """Create the RTC processor from `config.rtc_config`; LeRobot calls this again if it sets that later."""
        self.rtc_processor = make_processor(self.config.rtc_config)

    def reset(self) -> None:
        """Discard the queued actions and the predicted codes; LeRobot calls this at the start of every episode."""
        super().reset()
        self._plan: tuple[list[str], Int[Tensor, "b c"]] | None = None
        self._chunks_of_plan = 0

    def forward(self, batch: dict[str, Any], reduction: str = "mean") -> tuple[Tensor, dict[str, float]]:
        """Loss of the action expert, given label codes or predicted codes, plus the loss on latent codes.

        Args:
            batch: A preprocessed training batch; it is not modified.
            reduction: "mean", or "none" for a loss per sample.

        Returns:
            Loss, a scalar or (b,), and its parts as numbers for the log.

        Raises:
            ValueError: If the batch lacks latent labels or instructions, or a pixel is not finite.
        """
        taught = self._actions_known(batch)
        if self.training:
            self.steps_trained += 1
        if not self.config.latent_conditioning:
            inputs = self._see(batch)
            error = self._expert_error(batch, None, taught)
            return self._add_up(inputs, reduction=reduction, latent=None, error=error, taught=taught)
        labels = batch_labels(batch, self.labels, self.backend.spec)
        inputs = self._see(batch, labels=labels)
        latent = self.backend.loss(inputs) if self._learns_codes else None
        taught = taught & labels.counted
        codes, predicted = self._training_codes(inputs, labels.targets())
        error = self._expert_error(batch, codes, taught)
        shares = {"predicted_share": predicted.float().mean()}
        return self._add_up(inputs, reduction=reduction, latent=latent, error=error, taught=taught, shares=shares)

    def _training_codes(
        self, inputs: FoundationBatch, labels: Int[Tensor, "b c"]
    ) -> tuple[Int[Tensor, "b c"], Bool[Tensor, " b"]]:
        """Codes for the expert in training, and a mask of the samples whose codes are predictions."""
        predicted = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
        if self.config.predicted_codes == 0 or not self.training:
            return labels, predicted
        # The share of predicted codes grows linearly over `predicted_codes_after` steps.
        grown = (self.steps_trained / self.config.predicted_codes_after).clamp_max(1)
        predicted = torch.rand(len(labels), device=labels.device) < self.config.predicted_codes * grown
        with torch.no_grad():
            own = self.backend.predict(inputs).codes
        return torch.where(predicted[:, None], own, labels), predicted

    def _expert_error(
        self,
        batch: dict[str, Any],
        codes: Int[Tensor, "b c"] | None,
        taught: Bool[Tensor, " b"],
    ) -> Float[Tensor, " b"]:
        features, actions = self._seen(batch), self._target(batch, taught)
        if self.config.expert == "flow":
            flow = cast(FlowExpert, self.expert)  # isinstance would fail if PEFT wraps the module
            prefix = flow.prefix(*self._tokens(features, codes), self._state(batch))
            time = early_times(len(actions), device=actions.device)
            error = flow.loss(actions, prefix, noise=torch.randn_like(actions), time=time)
        else:
            error = cast(DiffusionExpert, self.expert).loss(actions, self._condition(features, batch, codes))
        return self._over_steps(error, batch, taught)

    @inference
    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """Actions (b, chunk_size, a) from the current frame; labels and actions in `batch` are ignored.

        If `replan_every` is above 1, the next calls reuse the predicted codes, until `reset` or a new instruction.

        Args:
            batch: Observations and instructions.
            **kwargs: `codes` (b, c) to use instead of predicting them; `noise` (b, chunk_size, a) to start from; for
                real-time chunking `inference_delay`, `prev_chunk_left_over` and `execution_horizon`.
        """
        inputs = self._see_to_act(batch)
        codes, noise = kwargs.get("codes"), kwargs.get("noise")
        if codes is None and self.config.latent_conditioning:
            codes = self._planned(inputs)
        features = self._seen(batch)
        if self.config.expert == "diffusion":
            diffusion = cast(DiffusionExpert, self.expert)
            return diffusion.denoise(self._condition(features, batch, codes), noise=noise)
        flow = cast(FlowExpert, self.expert)
        prefix = flow.prefix(*self._tokens(features, codes), self._state(batch))
        if noise is None:
            noise = torch.randn(len(inputs), self.chunk_size, self.action_dim, device=features.device)
        steps = self.config.num_inference_steps
        assert steps is not None, "checked by the configuration"
        return flow.denoise(noise, prefix, steps=steps, guide=chunk_guide(self.rtc_processor, kwargs))

    def saved_name(self, name: str) -> str | None:
        """Name of a weight in the saved policy: an image encoder is matched by the name of its camera.

        If no camera has the name of a saved one, encoders are matched by their order. None means a new camera.
        """
        part, _, rest = name.partition(".")
        before, now = cameras_of(self._saved), list(self.config.image_features)
        if part != "eyes" or set(before).isdisjoint(now):
            return name
        number, _, weight = rest.partition(".")
        camera = now[int(number)]
        return f"eyes.{before.index(camera)}.{weight}" if camera in before else None

    def _planned(self, inputs: FoundationBatch) -> Int[Tensor, "b c"]:
        """Codes for the next chunk; predicted anew after `replan_every` chunks or if an instruction changes."""
        plan = self._plan
        if plan is None or self._chunks_of_plan >= self.config.replan_every or plan[0] != inputs.instructions:
            self._plan = plan = (list(inputs.instructions), self.backend.predict(inputs).codes)
            self._chunks_of_plan = 0
        self._chunks_of_plan += 1
        return plan[1]

    def _seen(self, batch: dict[str, Any]) -> Float[Tensor, "b v q"]:
        """Features of every camera from the expert's own image encoders."""
        images = camera_images(batch, self.config.image_features, self.config.expert_image_size)
        batch_size = len(images)
        images = rearrange(images, "b v c h w -> (b v) c h w")
        if self.training:
            draws = RowDraws.of_process(self.steps_trained, batch_size)
            images = random_shift(images, self.config.random_shift_px, draws=draws)
        by_camera = rearrange(images, "(b v) c h w -> v b c h w", b=batch_size)
        return torch.stack([eye(view) for eye, view in zip(self.eyes, by_camera, strict=True)], dim=1)

    def _condition(
        self, features: Float[Tensor, "b v q"], batch: dict[str, Any], codes: Int[Tensor, "b c"] | None
    ) -> Float[Tensor, "b g"]:
        state = self._state(batch)
        told = [] if codes is None else [self.codes(codes).flatten(1)]
        return torch.cat([features.flatten(1), *told, *([] if state is None else [state])], dim=1)

    def _tokens(
        self, features: Float[Tensor, "b v q"], codes: Int[Tensor, "b c"] | None
    ) -> tuple[Float[Tensor, "b l d"], Bool[Tensor, "b l"]]:
        """Tokens for the flow expert, one per camera and per code, and their mask.

        Zero padding gives camera features and code vectors separate channels, so that one projection serves both.
        """
        tokens = features
        if codes is not None:
            vectors, q = self.codes(codes), features.shape[-1]
            tokens = torch.cat([F.pad(features, (0, vectors.shape[-1])), F.pad(vectors, (q, 0))], dim=1)
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)

    def _state(self, batch: dict[str, Any]) -> Float[Tensor, "b r"] | None:
        return None if self.state_dim is None else self._current_state(batch)


def _require_actions_within_clip(config: HLRPActionExpertLatentConfig, dataset_meta: Any) -> None:
    """Raise where the diffusion expert would clip actions that no normalization brings into its range.

    Raises:
        ValueError: If an action of the dataset is beyond it.
    """
    mode = config.normalization_mapping.get("ACTION", NormalizationMode.IDENTITY)
    if config.expert != "diffusion" or not config.clip_sample or mode is not NormalizationMode.IDENTITY:
        return
    stats = (dataset_meta.stats or {}).get(ACTION, {})
    largest = max((float(np.abs(stats[name]).max()) for name in ("min", "max") if name in stats), default=0.0)
    if largest > config.clip_sample_range:
        raise ValueError(
            f"the diffusion expert clips actions to ±{config.clip_sample_range:g}, those of the dataset reach "
            f"±{largest:g}, and IDENTITY leaves them so; normalize ACTION by MIN_MAX, QUANTILES or QUANTILE10, or set "
            "--policy.clip_sample=false"
        )
