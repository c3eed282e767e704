"""Train any foundation backend with Lightning.

Shapes: b batch, s codes of one label, k codebook entries.
"""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hlrp.foundation.backends.interfaces import FoundationBackend, FoundationLoss
from hlrp.foundation.batch import FoundationBatch
from hlrp.measure.code_accuracy import CodeFigures, CodePredictions, code_figures
from hlrp.foundation.online_labels import OnlineLabels, TaughtBatch
from hlrp.training.optimization import OptimizerConfig, learn_in_float32, lightning_optimizers


class VLABackendModule(pl.LightningModule):
    """Stage 2: teach a backend to predict a LAQ's codes from one frame and an instruction.

    Args:
        backend: What learns; its trainable weights are brought to float32.
        optimizer: How.
        training_counts: `code_counts` of the training labels: the logged constant guess then says each slot's most
            frequent code of training, and without them that of validation.
        online: What labels batches that come with clips instead of codes.
    """

    def __init__(
        self,
        backend: FoundationBackend,
        optimizer: OptimizerConfig | None = None,
        *,
        training_counts: Int[Tensor, "s k"] | None = None,
        online: OnlineLabels | None = None,
    ) -> None:
        super().__init__()
        learn_in_float32(backend)
        self.backend = backend
        self.optimizer_config = optimizer or OptimizerConfig()
        self.predictions: CodePredictions | None = None
        """What the model said in the last validation, frame by frame, on the host. Under fsdp a copy of this module is
        validated, and these stay None: run `predict_codes` then."""
        self._training_counts = training_counts
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
        figures = code_figures(
            self.predictions,
            codebook_size=self.backend.spec.codebook_size,
            training_counts=self._training_counts,
        )
        losses = {
            f"val/{name}": torch.stack([sums[name] for sums in self._loss_sums]).sum() / figures.frames
            for name in self._loss_sums[0]
        }
        self.log_dict(losses | validation_log(figures))
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


def validation_log(figures: CodeFigures) -> dict[str, float]:
    """Figures under their names in the log: those of `CodeFigures`, after `val/`."""
    slots = enumerate(figures.teacher_forced_accuracy_per_slot)
    return {
        "val/decoded_accuracy": figures.decoded_accuracy,
        "val/teacher_forced_accuracy": figures.teacher_forced_accuracy,
        **{f"val/teacher_forced_accuracy_slot_{slot}": value for slot, value in slots},
        "val/exact_sequence_accuracy": figures.exact_sequence_accuracy,
        "val/calibration_error": figures.calibration_error,
        "val/constant_guess_accuracy": figures.constant_guess_accuracy,
    }


def _losses(result: FoundationLoss) -> dict[str, Float[Tensor, ""]]:
    return {"loss": result.loss.detach(), **{f"{name}_loss": term.detach() for name, term in result.terms.items()}}
