"""`hlrp_action_expert_direct`: a flow-matching expert predicts actions from the foundation VLA's features."""

from typing import Any

from torch import Tensor

from hlrp.experts.interface import ObservationTokens
from hlrp.foundation.backends import FoundationLoss, PromptFeatures
from hlrp.foundation.batch import FoundationBatch
from hlrp.training.evaluation_mode import inference

from ..common.expert_policy import HLRPExpertPolicy
from ..common.labels import batch_labels
from ..common.modeling import training_step
from .configuration_hlrp_action_expert_direct import HLRPActionExpertDirectConfig


class HLRPActionExpertDirectPolicy(HLRPExpertPolicy):
    """Foundation VLA with a flow-matching expert on its features; both are trained, or only the expert."""

    config_class = HLRPActionExpertDirectConfig  # pyright: ignore[reportAssignmentType]
    config: HLRPActionExpertDirectConfig
    name = "hlrp_action_expert_direct"  # pyright: ignore[reportAssignmentType]
    action_modules = ("expert",)

    def __init__(self, config: HLRPActionExpertDirectConfig, *args: Any, **kwargs: Any) -> None:
        """Build the policy; see `HLRPPolicy`."""
        super().__init__(config, *args, **kwargs)

    def _build_head(self, dataset_meta: Any | None) -> None:
        self._build_expert(dataset_meta, feature_dim=self.backend.feature_dim, num_tokens=None)

    @training_step
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
        inputs, features, latent = self._training_features(batch)
        target = self._action_target(batch)
        error = self._expert_error(target, _tokens(features), None, batch)
        return self._total_loss(inputs, reduction=reduction, latent=latent, error=error, target=target)

    def _training_features(
        self, batch: dict[str, Any]
    ) -> tuple[FoundationBatch, PromptFeatures, FoundationLoss | None]:
        """Inputs and features of the VLA, and its loss on latent codes (None if unused), in one forward pass."""
        if self.config.learns_codes:
            inputs = self._vla_inputs(batch, labels=batch_labels(batch, self.labels, self.backend.spec))
            latent = self.backend.loss(inputs)
            return inputs, latent.features, latent
        inputs = self._vla_inputs(batch)
        return inputs, self.backend.features(inputs), None

    @inference
    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """Actions (b, chunk_size, a) from the current frame; labels and actions in `batch` are ignored.

        Args:
            batch: Observations and instructions.
            **kwargs: `noise` (b, chunk_size, a) to start from; and for real-time chunking `inference_delay`,
                `prev_chunk_left_over` and `execution_horizon`.
        """
        inputs = self._inference_inputs(batch)
        self._imagine(batch, inputs)
        features = self.backend.features(inputs)
        return self._expert_actions(_tokens(features), None, batch, kwargs)


def _tokens(features: PromptFeatures) -> ObservationTokens:
    return ObservationTokens(features.hidden, features.mask)
