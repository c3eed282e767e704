"""Train any foundation backend with Lightning.

Shapes: b batch, s codes of one label, k codebook entries.
"""

from __future__ import annotations

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hlrp.foundation.backends.interfaces import FoundationBackend, FoundationLoss
from hlrp.foundation.batch import FoundationBatch
from hlrp.optimization import OptimizerConfig, lightning_optimizers


class VLABackendModule(pl.LightningModule):
    """Stage 2: teach a backend to predict a LAQ's codes from one frame and an instruction."""

    label_counts: Int[Tensor, "s k"]

    def __init__(self, backend: FoundationBackend, optimizer: OptimizerConfig | None = None) -> None:
        super().__init__()
        self.backend = backend
        self.optimizer_config = optimizer or OptimizerConfig()
        shape = (backend.spec.num_codes, backend.spec.codebook_size)
        # Labels seen in this validation epoch; the best constant guess follows from them.
        self.register_buffer("label_counts", torch.zeros(shape, dtype=torch.long), persistent=False)

    def training_step(self, batch: FoundationBatch, batch_idx: int) -> Float[Tensor, ""]:
        """Loss of one batch."""
        result = self.backend.loss(batch)
        self._log("train", result, batch_size=len(batch))
        return result.loss

    def validation_step(self, batch: FoundationBatch, batch_idx: int) -> None:
        """Loss and accuracies of one batch; sequences are decoded as they are at inference."""
        result = self.backend.loss(batch)
        assert batch.codes is not None
        right = self.backend.predict(batch).codes == batch.codes
        counted = result.counted
        total = counted.sum().clamp_min(1)
        weight = int(total)  # one host copy per validation batch, so that batches weigh by their labels
        self._log("val", result, batch_size=weight)
        self.log_dict(
            {
                "val/decoded_accuracy": torch.where(counted, right.float().mean(1), 0.0).sum() / total,
                "val/exact_sequence_accuracy": (right.all(1) & counted).sum() / total,
            },
            batch_size=weight,
        )
        one_hot = F.one_hot(batch.codes.clamp_min(0), self.backend.spec.codebook_size)  # b s k
        self.label_counts += (one_hot * counted[:, None, None]).sum(0)

    def on_validation_epoch_start(self) -> None:
        self.label_counts.zero_()

    def on_validation_epoch_end(self) -> None:
        """Log what always guessing each slot's most frequent validation code would score."""
        gathered = self.all_gather(self.label_counts)  # one leading axis more with several processes
        assert isinstance(gathered, Tensor)
        counts = gathered.reshape(-1, *self.label_counts.shape).sum(0)
        best = counts.amax(1).sum() / counts.sum().clamp_min(1)
        self.log("val/marginal_accuracy", best)

    def transfer_batch_to_device(
        self, batch: FoundationBatch, device: torch.device, dataloader_idx: int
    ) -> FoundationBatch:
        return batch.to(device, non_blocking=True)

    def configure_optimizers(self) -> dict[str, object]:
        """AdamW over the trainable parameters, stepped by a warmup and a cosine over the whole run."""
        total = int(self.trainer.estimated_stepping_batches)
        return lightning_optimizers(self.backend, self.optimizer_config, total_steps=total)

    def _log(self, stage: str, result: FoundationLoss, *, batch_size: int) -> None:
        slots = {f"{stage}/accuracy_slot_{slot}": value for slot, value in enumerate(result.accuracy)}
        self.log_dict(
            {f"{stage}/loss": result.loss, f"{stage}/accuracy": result.accuracy.mean(), **slots},
            batch_size=batch_size,
        )
