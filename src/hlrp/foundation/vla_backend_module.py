"""Train any foundation backend with Lightning.

Shapes: b batch, s codes of one label, k codebook entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from torch import Tensor

from hlrp.foundation.backends.interfaces import FoundationBackend, FoundationLoss
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.online_labels import OnlineLabels, TaughtBatch
from hlrp.foundation.predictions import CodePredictions
from hlrp.training.optimization import OptimizerConfig, learn_in_float32, lightning_optimizers


class VLABackendModule(pl.LightningModule):
    """Stage 2: teach a backend to predict a LAQ's codes from one frame and an instruction.

    Args:
        backend: What learns; its trainable weights are brought to float32.
        optimizer: How.
        figures: Figures of the predictions of a validation, by the names under which they are logged, such as
            `validation_log` of `code_figures`; None logs the losses alone.
        online: What labels batches that come with clips instead of codes.
    """

    def __init__(
        self,
        backend: FoundationBackend,
        optimizer: OptimizerConfig | None = None,
        *,
        figures: Callable[[CodePredictions], Mapping[str, float]] | None = None,
        online: OnlineLabels | None = None,
    ) -> None:
        super().__init__()
        learn_in_float32(backend)
        self.backend = backend
        self.optimizer_config = optimizer or OptimizerConfig()
        self.predictions: CodePredictions | None = None
        """What the model said in the last validation, frame by frame, on the host. Under fsdp a copy of this module is
        validated, and these stay None: run `predict_codes` then."""
        self._figures = figures
        self._online = online
        self._parts: list[CodePredictions] = []
        self._loss_sums: list[dict[str, Float[Tensor, ""]]] = []

    def training_step(self, batch: FoundationBatch | TaughtBatch, batch_idx: int) -> Float[Tensor, ""]:
        """Loss of one batch."""
        result = self.backend.loss(self._labelled(batch))
        slots = {f"train/teacher_forced_accuracy_slot_{slot}": value for slot, value in enumerate(result.accuracy)}
        losses = {f"train/{name}": value for name, value in _losses(result).items()}
        accuracy = {"train/teacher_forced_accuracy": result.accuracy.mean(), **slots}
        self.log_dict({**losses, **accuracy}, batch_size=len(batch))
        return result.loss

    def on_validation_epoch_start(self) -> None:
        self._parts, self._loss_sums = [], []

    def validation_step(self, batch: FoundationBatch | TaughtBatch, batch_idx: int) -> None:
        """Keep what the model says; sequences are decoded as they are at inference. Nothing leaves the device."""
        batch = self._labelled(batch)
        result = self.backend.loss(batch)
        assert batch.codes is not None, "backends refuse a loss without codes"
        self._parts.append(CodePredictions.of(result, self.backend.predict(batch), batch.codes))
        self._loss_sums.append({name: value * result.counted.sum() for name, value in _losses(result).items()})

    def on_validation_epoch_end(self) -> None:
        """Log the figures of all frames together, so that batches weigh by their labels."""
        self.predictions = CodePredictions.joined(self._parts)
        frames = int(self.predictions.counted.sum())
        losses = {
            f"val/{name}": torch.stack([sums[name] for sums in self._loss_sums]).sum() / frames
            for name in self._loss_sums[0]
        }
        self.log_dict({**losses, **(self._figures(self.predictions) if self._figures else {})})
        self._parts, self._loss_sums = [], []

    def transfer_batch_to_device(
        self, batch: FoundationBatch | TaughtBatch, device: torch.device, dataloader_idx: int
    ) -> FoundationBatch | TaughtBatch:
        return batch.to(device, non_blocking=True)

    def configure_optimizers(self) -> dict[str, object]:
        """AdamW over the trainable parameters, stepped by a warmup and a cosine over the whole run."""
        total = int(self.trainer.estimated_stepping_batches)
        return lightning_optimizers(self.backend, self.optimizer_config, total_steps=total)

    def _labelled(self, batch: FoundationBatch | TaughtBatch) -> FoundationBatch:
        if isinstance(batch, FoundationBatch):
            return batch
        assert self._online is not None, "clips come with the quantizer that labels them"
        return self._online.label(batch)


def _losses(result: FoundationLoss) -> dict[str, Float[Tensor, ""]]:
    return {"loss": result.loss.detach(), **{f"{name}_loss": term.detach() for name, term in result.terms.items()}}
