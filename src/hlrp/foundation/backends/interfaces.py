"""What every foundation backend can do, whatever model is inside.

Shapes: b batch, s codes of one label, k codebook entries, l prompt tokens, d feature width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hlrp.foundation.batch import FoundationBatch
from hlrp.latents import LatentSpec


@dataclass(frozen=True)
class PromptFeatures:
    """What the model makes of image and instruction, before any code: input of an action expert."""

    hidden: Float[Tensor, "b l d"]
    """Final hidden states of the prompt, padding on the left."""
    mask: Bool[Tensor, "b l"]
    """True where a token is, False on padding."""


@dataclass(frozen=True)
class FoundationLoss:
    """Loss of a batch, with what a log line needs."""

    loss: Float[Tensor, ""]
    """Mean of `per_sample` over the samples that count; 0 when none does."""
    per_sample: Float[Tensor, " b"]
    """Cross-entropy of each sample, in nats; 0 for a sample that does not count."""
    counted: Bool[Tensor, " b"]
    """True where the sample is valid and every slot is labelled."""
    accuracy: Float[Tensor, " s"]
    """Share of counted samples whose code is right, per slot, given the true codes of the slots before."""
    logits: Float[Tensor, "b s k"]
    """Scores of the k codes in every slot."""
    features: PromptFeatures
    """Prompt features of the same forward pass, with gradients."""


@dataclass(frozen=True)
class LatentPrediction:
    """Predicted latent actions."""

    codes: Int[Tensor, "b s"]
    """Codes in [0, k), one after the other."""
    log_probs: Float[Tensor, "b s"]
    """Log-probability of each chosen code among the k codes, at temperature 1."""
    features: PromptFeatures
    """Prompt features of the same forward pass."""


class FoundationBackend(nn.Module, ABC):
    """Predicts latent codes from one frame and an instruction."""

    backend_type: ClassVar[str]
    """Name in a checkpoint's `foundation.json`."""
    spec: LatentSpec
    """Geometry of the codes this backend predicts."""

    @property
    @abstractmethod
    def feature_dim(self) -> int:
        """Width d of `PromptFeatures.hidden`."""

    @abstractmethod
    def loss(self, batch: FoundationBatch) -> FoundationLoss:
        """Cross-entropy of the labels in `batch`.

        A sample that is invalid or has an unlabelled slot contributes exactly zero loss and gradient.

        Raises:
            ValueError: If the batch has no codes, or codes of another geometry.
        """

    @abstractmethod
    def predict(
        self,
        batch: FoundationBatch,
        *,
        temperature: float | None = None,
        generator: torch.Generator | None = None,
    ) -> LatentPrediction:
        """Predict codes; labels in `batch` are not looked at.

        Args:
            batch: Frames and instructions.
            temperature: None picks the most likely code of every slot; a positive number samples.
            generator: Source of randomness for sampling, on the model's device.
        """

    @abstractmethod
    def features(self, batch: FoundationBatch) -> PromptFeatures:
        """Prompt features alone: one forward pass, with gradients where enabled."""

    @abstractmethod
    def config_dict(self) -> dict[str, Any]:
        """Configuration as plain JSON values; `from_assets` takes it back."""

    @abstractmethod
    def save_assets(self, directory: Path) -> None:
        """Write everything but the weights (architecture, tokenizer, processor) as JSON files."""

    @classmethod
    @abstractmethod
    def from_assets(cls, directory: Path, *, config: Mapping[str, Any], spec: LatentSpec) -> FoundationBackend:
        """Rebuild the architecture from `save_assets`, offline, with weights still to be loaded."""
