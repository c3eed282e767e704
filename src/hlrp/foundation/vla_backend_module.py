"""Train any foundation backend with Lightning."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from torch import Tensor

from hlrp.foundation.backends.interfaces import FoundationBackend, FoundationLoss
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.online_labels import OnlineLabelBatch, OnlineLabels
from hlrp.foundation.predictions import CodePredictions
from hlrp.training.optimization import OptimizerConfig, learn_in_float32, lightning_optimizers


class VLABackendModule(pl.LightningModule):
    """Lightning module of stage 2: a backend learns to predict latent codes from one frame and an instruction.

    Args:
        backend: The model to train; its trainable weights are converted to float32.
        optimizer: Options of the optimizer and its learning-rate schedule; None takes the defaults.
        metrics: Computes the metrics that every validation logs, by their names in the log, such as `validation_log`
            of `code_accuracy`; None logs the losses alone.
        online: Labels batches that come with clips instead of codes; None if all batches have codes.
    """

    def __init__(
        self,
        backend: FoundationBackend,
        optimizer: OptimizerConfig | None = None,
        *,
        metrics: Callable[[CodePredictions], Mapping[str, float]] | None = None,
        online: OnlineLabels | None = None,
    ) -> None:
        super().__init__()
        learn_in_float32(backend)
        self.backend = backend
        self.optimizer_config = optimizer or OptimizerConfig()
        self.predictions: CodePredictions | None = None
        """Predictions of the last validation, frame by frame, on the CPU. Under FSDP a copy of this module is validated
        and this attribute stays None: run `predict_codes` afterwards."""
        self._metrics = metrics
        self._online = online
        self._parts: list[CodePredictions] = []
        self._loss_sums: list[dict[str, Float[Tensor, ""]]] = []

    def training_step(self, batch: FoundationBatch | OnlineLabelBatch, batch_idx: int) -> Float[Tensor, ""]:
        """Compute the loss of one batch, and log it with the teacher-forced accuracy of every slot."""
        result = self.backend.loss(self.labelled(batch))
        slots = {f"train/teacher_forced_accuracy_slot_{slot}": value for slot, value in enumerate(result.accuracy)}
        losses = {f"train/{name}": value for name, value in _losses(result).items()}
        shown = {"train/loss": losses.pop("train/loss"), "train/teacher_forced_accuracy": result.accuracy.mean()}
        self.log_dict({**losses, **slots}, batch_size=len(batch))
        self.log_dict(shown, prog_bar=True, batch_size=len(batch))  # the progress bar has room for these two
        return result.loss

    def on_validation_epoch_start(self) -> None:
        self._parts, self._loss_sums = [], []

    def validation_step(self, batch: FoundationBatch | OnlineLabelBatch, batch_idx: int) -> None:
        """Collect predicted codes, decoded as at inference. Nothing is copied to the CPU before the epoch's end."""
        batch = self.labelled(batch)
        result = self.backend.loss(batch)
        labels = batch.require_labels(self.backend.spec)
        self._parts.append(CodePredictions.of(result, self.backend.predict(batch), labels))
        self._loss_sums.append({name: value * result.counted.sum() for name, value in _losses(result).items()})

    def on_validation_epoch_end(self) -> None:
        """Log metrics over all validation frames together, so that each labelled frame has the same weight."""
        self.predictions = CodePredictions.joined(self._parts)
        frames = int(self.predictions.counted.sum())
        losses = {
            f"val/{name}": torch.stack([sums[name] for sums in self._loss_sums]).sum() / frames
            for name in self._loss_sums[0]
        }
        self.log_dict({**losses, **(self._metrics(self.predictions) if self._metrics else {})})
        self._parts, self._loss_sums = [], []

    def transfer_batch_to_device(
        self, batch: FoundationBatch | OnlineLabelBatch, device: torch.device, dataloader_idx: int
    ) -> FoundationBatch | OnlineLabelBatch:
        return batch.to(device, non_blocking=True)

    def configure_optimizers(self) -> dict[str, object]:
        """AdamW over the trainable parameters, with a linear warmup and a cosine decay over the whole run."""
        total = int(self.trainer.estimated_stepping_batches)
        return lightning_optimizers(self.backend, self.optimizer_config, total_steps=total)

    def labelled(self, batch: FoundationBatch | OnlineLabelBatch) -> FoundationBatch:
        """Return `batch` with labels: as it is, or with those that the LAQ gives its clips."""
        if isinstance(batch, FoundationBatch):
            return batch
        assert self._online is not None, "a batch of clips needs the LAQ that labels it"
        return self._online.label(batch)


def _losses(result: FoundationLoss) -> dict[str, Float[Tensor, ""]]:
    return {"loss": result.loss.detach(), **{f"{name}_loss": term.detach() for name, term in result.terms.items()}}
