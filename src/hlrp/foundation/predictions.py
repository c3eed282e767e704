"""What a foundation model says of labelled frames: true and decoded codes with their probabilities.

Shapes: m frames, b batch, s codes of one label.
"""

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
from hlrp.latents import NO_LABEL
from hlrp.training.evaluation_mode import evaluation_mode

CALIBRATION_BINS = 15
"""Bins of equal width between probability 0 and 1, as in Guo et al. (arXiv:1706.04599)."""


@dataclass(frozen=True)
class CodePredictions:
    """Predictions of a model for labelled frames, without logits, so that all frames fit into memory."""

    codes: Int[Tensor, "m s"]
    """True codes of the labels; -1 in every slot of a frame that does not count."""
    decoded: Int[Tensor, "m s"]
    """Codes predicted as at inference, each given the model's own previous codes."""
    probability: Float[Tensor, "m s"]
    """Probability of each decoded code among the k codes."""
    teacher: Int[Tensor, "m s"]
    """Most likely code of each slot, given the true previous codes (teacher forcing)."""
    nats: Float[Tensor, "m s"]
    """Cross-entropy of the true code in nats, given the true previous codes; 0 if a frame does not count."""

    def __len__(self) -> int:
        return len(self.codes)

    @classmethod
    def of(cls, result: FoundationLoss, prediction: LatentPrediction, codes: Int[Tensor, "b s"]) -> CodePredictions:
        """Predictions of one batch, on the batch's device."""
        counted = result.counted[:, None]
        nats = F.cross_entropy(rearrange(result.logits, "b s k -> b k s").float(), codes.clamp_min(0), reduction="none")
        return cls(
            codes=torch.where(counted, codes, NO_LABEL),
            decoded=prediction.codes,
            probability=prediction.log_probs.float().exp(),
            teacher=result.logits.argmax(-1),
            nats=torch.where(counted, nats, 0.0),
        )

    @classmethod
    def joined(cls, parts: Sequence[CodePredictions]) -> CodePredictions:
        """Concatenate the predictions of batches, and copy them to the CPU in one transfer."""
        rows = [torch.stack([value.detach().float() for value in vars(part).values()]) for part in parts]
        codes, decoded, probability, teacher, nats = torch.cat(rows, dim=1).cpu()  # float32 is exact below 2^24
        return cls(codes.long(), decoded.long(), probability, teacher.long(), nats)

    @property
    def counted(self) -> Bool[Tensor, " m"]:
        """True for frames with a label in every slot."""
        return (self.codes != NO_LABEL).all(1)

    def kept(self, keep: Bool[Tensor, " m"]) -> CodePredictions:
        """Predictions of the frames where `keep` is true."""
        return CodePredictions(**{name: value[keep] for name, value in vars(self).items()})


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
            assert batch.codes is not None, "backends refuse a loss without codes"
            parts.append(CodePredictions.of(result, backend.predict(batch), batch.codes))
    if not parts:
        raise ValueError("expected at least one batch of labelled frames, got none")
    return CodePredictions.joined(parts)


def device_of(backend: nn.Module) -> torch.device:
    """Device of a model's weights."""
    return next(backend.parameters()).device
