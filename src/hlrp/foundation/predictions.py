"""Predictions of a foundation model for labelled frames: true codes, decoded codes and their probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hlrp.foundation.backends.interfaces import FoundationBackend, FoundationLoss, LatentPrediction
from hlrp.foundation.batch import FoundationBatch
from hlrp.latents import LatentActions
from hlrp.training.evaluation_mode import evaluation_mode


@dataclass(frozen=True)
class CodePredictions:
    """Predictions of a model for labelled frames, without logits, so that all frames fit into memory."""

    codes: Int[Tensor, "f q"]
    """True codes of the labels; code 0 in place of a missing code."""
    decoded: Int[Tensor, "f q"]
    """Codes predicted as at inference, each given the model's own previous codes."""
    probability: Float[Tensor, "f q"]
    """Probability of each decoded code among the k codes."""
    teacher: Int[Tensor, "f q"]
    """Most likely code of each slot, given the true previous codes (teacher forcing)."""
    nats: Float[Tensor, "f q"]
    """Cross-entropy of the true code in nats, given the true previous codes."""
    counted: Bool[Tensor, " f"]
    """`LatentActions.counted` of the labels: only these frames enter metrics."""

    def __len__(self) -> int:
        return len(self.codes)

    @classmethod
    def of(cls, result: FoundationLoss, prediction: LatentPrediction, labels: LatentActions) -> CodePredictions:
        """Predictions of one batch, on the batch's device."""
        codes = labels.targets()
        return cls(
            codes=codes,
            decoded=prediction.codes,
            probability=prediction.log_probs.float().exp(),
            teacher=result.logits.argmax(-1),
            nats=F.cross_entropy(rearrange(result.logits, "b q k -> b k q").float(), codes, reduction="none"),
            counted=result.counted,
        )

    @classmethod
    def joined(cls, parts: Sequence[CodePredictions]) -> CodePredictions:
        """Concatenate the predictions of batches on the CPU."""

        def cat(rows: Iterable[Tensor]) -> Tensor:
            return torch.cat(list(rows)).detach().cpu()

        return cls(
            codes=cat(part.codes for part in parts),
            decoded=cat(part.decoded for part in parts),
            probability=cat(part.probability for part in parts),
            teacher=cat(part.teacher for part in parts),
            nats=cat(part.nats for part in parts),
            counted=cat(part.counted for part in parts),
        )

    def only_counted(self) -> CodePredictions:
        """Predictions of the frames that count."""
        keep = self.counted
        return CodePredictions(
            codes=self.codes[keep],
            decoded=self.decoded[keep],
            probability=self.probability[keep],
            teacher=self.teacher[keep],
            nats=self.nats[keep],
            counted=keep[keep],
        )


def predict_codes(backend: FoundationBackend, batches: Iterable[FoundationBatch]) -> CodePredictions:
    """Run a trained model over labelled batches; its training mode is restored afterwards.

    Raises:
        ValueError: If there is no batch, or a batch has no codes.
    """
    parts = []
    with evaluation_mode(backend), torch.no_grad():
        for batch in batches:
            batch = batch.to(device_of(backend))
            result = backend.loss(batch)
            parts.append(CodePredictions.of(result, backend.predict(batch), batch.require_labels(backend.spec)))
    if not parts:
        raise ValueError("expected at least one batch of labelled frames, got none")
    return CodePredictions.joined(parts)


def device_of(backend: nn.Module) -> torch.device:
    """Device of a model's weights."""
    return next(backend.parameters()).device
