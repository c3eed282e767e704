"""`hlrp_vla_direct`: the foundation VLA predicts latent codes, an MLP decodes them to a chunk of actions.

Shapes: b batch, c codes of one label, h chunk steps, a action dimensions, r state values.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lerobot.utils.constants import ACTION
from torch import Tensor

from hlrp.experts.code_decoder import CodeDecoder
from hlrp.foundation.batch import require_finite

from ..common.label_table import batch_labels
from ..common.logging_values import masked_mean, to_floats
from ..common.modeling import HLRPPolicy
from ..common.observations import foundation_batch
from .configuration_hlrp_vla_direct import HLRPVLADirectConfig


class HLRPVLADirectPolicy(HLRPPolicy):
    """Foundation VLA and code decoder, trained together."""

    config_class = HLRPVLADirectConfig  # pyright: ignore[reportAssignmentType]
    config: HLRPVLADirectConfig
    name = "hlrp_vla_direct"  # pyright: ignore[reportAssignmentType]

    def __init__(
        self,
        config: HLRPVLADirectConfig,
        dataset_stats: dict[str, Any] | None = None,
        dataset_meta: Any | None = None,
        *,
        checkpoint_dir: Path | None = None,
        **kwargs: Any,
    ) -> None:
        """Build the policy; see `HLRPPolicy`."""
        super().__init__(config, dataset_stats, dataset_meta, checkpoint_dir=checkpoint_dir, **kwargs)
        state = config.robot_state_feature if config.decoder_uses_state else None
        self.decoder = CodeDecoder(
            self.backend.spec,
            chunk_size=config.chunk_size,
            action_dim=self.action_dim,
            state_dim=None if state is None else state.shape[0],
            hidden_dim=config.decoder_hidden_dim,
        )
        if self.labels is not None:
            self.decoder.use_codebook(self.labels.codebook)
        self.reset()

    def forward(self, batch: dict[str, Any], reduction: str = "mean") -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of the codes plus L1 error of the actions decoded from the true codes.

        Args:
            batch: A preprocessed training batch; it is not changed.
            reduction: "mean", or "none" for a loss per sample.

        Returns:
            Loss, a scalar or (b,), and its parts as numbers.

        Raises:
            ValueError: If the batch has no labels or instruction, or a pixel is not finite.
        """
        codes, valid = batch_labels(batch, self.labels, self.backend.spec)
        inputs = foundation_batch(batch, self.config.image_features, codes=codes, valid=valid)
        latent = self.backend.loss(inputs)
        counted = latent.counted
        actions = self.decoder(codes.clamp_min(0), self._state(batch))
        taught = counted & self._actions_known(batch)
        error = self._over_steps((actions - batch[ACTION]).abs().mean(-1), batch, taught)
        action_loss = masked_mean(error, taught)
        config = self.config
        loss = config.latent_loss_weight * latent.loss + config.action_loss_weight * action_loss
        per_sample = config.latent_loss_weight * latent.per_sample + config.action_loss_weight * error
        values = to_floats(
            {
                "latent_loss": latent.loss,
                "action_loss": action_loss,
                "code_accuracy": latent.accuracy.mean(),
                "labelled_share": counted.float().mean(),
                "action_share": taught.float().mean(),
                "finite": torch.isfinite(inputs.images).all(),
            }
        )
        if not values.pop("finite"):
            require_finite(inputs.images)
        return (per_sample if reduction == "none" else loss), values

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """Actions (b, chunk_size, a) from the current frame; labels and actions in `batch` are not looked at."""
        self.eval()
        inputs = foundation_batch(batch, self.config.image_features)
        require_finite(inputs.images)
        return self.decoder(self.backend.predict(inputs).codes, self._state(batch))

    def _state(self, batch: dict[str, Any]) -> Float[Tensor, "b r"] | None:
        return None if self.decoder.state_dim is None else self._current_state(batch)
