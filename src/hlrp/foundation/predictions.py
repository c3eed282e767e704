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
    """What a model said about labelled frames, without its scores: small enough to keep for every frame."""

    codes: Int[Tensor, "m s"]
    """True codes; -1 in every slot of a frame that does not count."""
    decoded: Int[Tensor, "m s"]
    """Codes as the model says them at inference, each after its own codes before."""
    probability: Float[Tensor, "m s"]
    """Probability of each decoded code among the k codes."""
    teacher: Int[Tensor, "m s"]
    """The most likely code of each slot, given the true codes before it."""
    nats: Float[Tensor, "m s"]
    """Cross-entropy of the true code, given the true codes before it; 0 where a frame does not count."""

    def __len__(self) -> int:
        return len(self.codes)

    @classmethod
    def of(cls, result: FoundationLoss, prediction: LatentPrediction, codes: Int[Tensor, "b s"]) -> CodePredictions:
        """Of one batch, on its device."""
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
        """Batches one after the other, brought to the host in one transfer."""
        rows = [torch.stack([value.detach().float() for value in vars(part).values()]) for part in parts]
        codes, decoded, probability, teacher, nats = torch.cat(rows, dim=1).cpu()  # float32 holds codes below 2^24
        return cls(codes.long(), decoded.long(), probability, teacher.long(), nats)

    @property
    def counted(self) -> Bool[Tensor, " m"]:
        """True where a frame is labelled."""
        return (self.codes != NO_LABEL).all(1)

    def kept(self, keep: Bool[Tensor, " m"]) -> CodePredictions:
        """The frames where `keep` is true."""
        return CodePredictions(**{name: value[keep] for name, value in vars(self).items()})


def predict_codes(backend: FoundationBackend, batches: Iterable[FoundationBatch]) -> CodePredictions:
    """Run a trained model over labelled batches; it is left in the mode it was in.

    Raises:
        ValueError: If there is no batch, or one has no codes.
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
    """Where the weights are."""
    return next(backend.parameters()).device
