"""`hlrp_action_expert_latent`: the VLA predicts latent codes, and an expert maps images, state and codes to actions."""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hlrp.experts.code_decoder import CodeVectors
from hlrp.experts.image_encoder import ImageEncoder
from hlrp.experts.interface import ObservationTokens
from hlrp.foundation.augment import random_shift
from hlrp.foundation.batch import FoundationBatch
from hlrp.training.evaluation_mode import inference
from hlrp.training.row_draws import RowDraws

from ..common.expert_policy import HLRPExpertPolicy
from ..common.fine_tuning import cameras_of
from ..common.labels import batch_labels
from ..common.modeling import training_step
from ..common.observations import camera_images
from .configuration_hlrp_action_expert_latent import HLRPActionExpertLatentConfig


class HLRPActionExpertLatentPolicy(HLRPExpertPolicy):
    """Foundation VLA that predicts latent codes, with an action expert that follows them."""

    config_class = HLRPActionExpertLatentConfig  # pyright: ignore[reportAssignmentType]
    config: HLRPActionExpertLatentConfig
    name = "hlrp_action_expert_latent"  # pyright: ignore[reportAssignmentType]
    action_modules = ("expert", "image_encoders", "codes")
    steps_trained: Int[Tensor, ""]
    """Training batches of the run so far, on which the share of predicted codes depends."""

    def __init__(self, config: HLRPActionExpertLatentConfig, *args: Any, **kwargs: Any) -> None:
        """Build the policy; see `HLRPPolicy`."""
        super().__init__(config, *args, **kwargs)

    def _build_head(self, dataset_meta: Any | None) -> None:
        config = self.config
        if not config.latent_conditioning:
            self.backend.requires_grad_(False)
        self.codes = CodeVectors(self.backend.spec, learned_width=config.latent_embed_dim)
        if self.labels is not None:
            self.codes.use_codebook(self.labels.codebook)
        keypoints = config.spatial_softmax_num_keypoints
        self.image_encoders = nn.ModuleList(
            ImageEncoder(config.vision_backbone, config.expert_image_size, keypoints=keypoints)
            for _ in config.image_features
        )
        self._build_expert(
            dataset_meta,
            feature_dim=2 * keypoints,
            num_tokens=len(self.image_encoders),
            num_codes=self.backend.spec.num_codes if config.latent_conditioning else 0,
            code_dim=self.codes.codebook.shape[-1] if config.latent_conditioning else 0,
        )
        # A buffer, so that it is saved and a resumed run continues the schedule of predicted codes.
        self.register_buffer("steps_trained", torch.zeros((), dtype=torch.int64))

    def _count_steps(self, steps: int) -> None:
        super()._count_steps(steps)
        self.steps_trained.fill_(steps)  # of this run alone, whatever the saved policy was trained for

    def reset(self) -> None:
        """Discard the queued actions and the predicted codes; LeRobot calls this at the start of every episode."""
        super().reset()
        self._plan: tuple[list[str], Int[Tensor, "b q"]] | None = None
        self._chunks_of_plan = 0

    @training_step
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
        if self.training:
            self.steps_trained += 1
        labels = latent = codes = shares = codes_counted = None
        if self.config.latent_conditioning:
            labels = batch_labels(batch, self.labels, self.backend.spec)
            codes_counted = labels.counted
        inputs = self._vla_inputs(batch, labels=labels)
        if labels is not None:
            latent = self.backend.loss(inputs) if self.config.learns_codes else None
            codes, predicted = self._training_codes(inputs, labels.targets())
            shares = {"predicted_share": predicted.float().mean()}
        target = self._action_target(batch, codes_counted)
        error = self._expert_error(target, self._image_tokens(batch), self._code_vectors(codes), batch)
        return self._total_loss(inputs, reduction=reduction, latent=latent, error=error, target=target, shares=shares)

    def _training_codes(
        self, inputs: FoundationBatch, labels: Int[Tensor, "b q"]
    ) -> tuple[Int[Tensor, "b q"], Bool[Tensor, " b"]]:
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

    @inference
    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """Actions (b, chunk_size, a) from the current frame; labels and actions in `batch` are ignored.

        If `replan_every` is above 1, the next calls reuse the predicted codes, until `reset` or a new instruction.

        Args:
            batch: Observations and instructions.
            **kwargs: `codes` (b, q) to use instead of predicting them; `noise` (b, chunk_size, a) to start from; for
                real-time chunking `inference_delay`, `prev_chunk_left_over` and `execution_horizon`.
        """
        inputs, codes = self._inference_inputs(batch), kwargs.get("codes")
        if codes is None and self.config.latent_conditioning:
            codes = self._planned(inputs)
        self._imagine(batch, inputs, codes)
        return self._expert_actions(self._image_tokens(batch), self._code_vectors(codes), batch, kwargs)

    def saved_name(self, name: str) -> str | None:
        """Name of a weight in the saved policy: an image encoder is matched by the name of its camera.

        If no camera has the name of a saved one, encoders are matched by their order. None means a new camera.
        """
        part, _, rest = name.partition(".")
        before, now = cameras_of(self._saved), list(self.config.image_features)
        if part != "image_encoders" or set(before).isdisjoint(now):
            return name
        number, _, weight = rest.partition(".")
        camera = now[int(number)]
        return f"image_encoders.{before.index(camera)}.{weight}" if camera in before else None

    def _planned(self, inputs: FoundationBatch) -> Int[Tensor, "b q"]:
        """Codes for the next chunk; predicted anew after `replan_every` chunks or if an instruction changes."""
        plan = self._plan
        if plan is None or self._chunks_of_plan >= self.config.replan_every or plan[0] != inputs.instructions:
            self._plan = plan = (list(inputs.instructions), self.backend.predict(inputs).codes)
            self._chunks_of_plan = 0
        self._chunks_of_plan += 1
        return plan[1]

    def _image_tokens(self, batch: dict[str, Any]) -> ObservationTokens:
        """Features of every camera from the expert's own image encoders."""
        images = camera_images(batch, self.config.image_features, self.config.expert_image_size)
        batch_size = len(images)
        images = rearrange(images, "b m c h w -> (b m) c h w")
        if self.training:
            draws = RowDraws.of_process(self.steps_trained, batch_size)
            images = random_shift(images, self.config.random_shift_px, draws=draws)
        by_camera = rearrange(images, "(b m) c h w -> m b c h w", b=batch_size)
        features = [encoder(image) for encoder, image in zip(self.image_encoders, by_camera, strict=True)]
        return ObservationTokens(torch.stack(features, dim=1))

    def _code_vectors(self, codes: Int[Tensor, "b q"] | None) -> Float[Tensor, "b q v"] | None:
        return None if codes is None else self.codes(codes)
