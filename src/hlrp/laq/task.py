"""Train a quantizer with Lightning.

Shapes: b clips, t frames, c h w a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import lightning.pytorch as pl
from jaxtyping import Float, UInt8
from torch import Tensor

from hlrp.laq.losses import reconstruction_loss
from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.views import ViewConfig, altered_view
from hlrp.optimization import OptimizerConfig, lightning_optimizers


@dataclass(frozen=True, kw_only=True)
class LAQTrainingConfig:
    """What a quantizer is trained with."""

    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1.5e-3))
    motion_strength: float = 15.0
    """Extra loss weight of pixels that moved; see `motion_weight`."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """How the encoder's view differs from the decoder's."""


class LAQTask(pl.LightningModule):
    """Stage 1: predict later frames from the first one and a few codes."""

    def __init__(self, model: LatentActionQuantizer, config: LAQTrainingConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config

    def training_step(self, frames: UInt8[Tensor, "b t c h w"], batch_idx: int) -> Float[Tensor, ""]:
        """Loss of one batch of clips."""
        pixels = self.model.to_pixels(frames)
        before, after = pixels[:, :-1], pixels[:, 1:]
        result = self.model(pixels, altered_view(pixels, self.config.views))
        reconstruction = reconstruction_loss(result.frames, before, after, motion_strength=self.config.motion_strength)
        loss = _SCALE * reconstruction + result.quantizer_loss
        copy_gain = 1 - (result.frames - after).square().sum() / (before - after).square().sum().clamp_min(1e-6)
        self.log_dict(
            {
                "train/loss": loss,
                "train/reconstruction": reconstruction,
                "train/copy_gain": copy_gain.detach(),
            },
            prog_bar=True,
            batch_size=len(frames),
        )
        return loss

    def configure_optimizers(self) -> dict[str, object]:
        """AdamW with warmup and cosine over the whole run."""
        total = int(self.trainer.estimated_stepping_batches)
        return lightning_optimizers(self.model, self.config.optimizer, total_steps=total)


_SCALE = 10.0
"""Brings pixel errors of a few thousandths to the scale of the quantizer's own loss."""
