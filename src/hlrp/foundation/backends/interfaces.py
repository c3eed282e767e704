"""What every foundation backend can do, whatever model is inside.

Shapes: b batch, s codes of one label, k codebook entries, l prompt tokens, d feature width, m candidates, w width of
one code vector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.config import DTYPE_NAMES
from hlrp.latents import LatentSpec
from hlrp.row_draws import RowDraws

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES}
"""Types of weights, by the name a configuration gives them."""


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
    """Loss of each sample: cross-entropy in nats, plus what a continuous head adds; 0 where a sample does not count."""
    counted: Bool[Tensor, " b"]
    """True where the sample is valid and every slot is labelled."""
    accuracy: Float[Tensor, " s"]
    """Share of counted samples whose code is right, per slot; given the true codes before, where codes come in turn."""
    logits: Float[Tensor, "b s k"]
    """Scores of the k codes in every slot."""
    features: PromptFeatures
    """Prompt features of the same forward pass, with gradients."""
    terms: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Parts of `loss` by name and before their weights, where it has several, for the log."""


@dataclass(frozen=True)
class LatentPrediction:
    """Predicted latent actions."""

    codes: Int[Tensor, "b s"]
    """Codes in [0, k), one after the other."""
    log_probs: Float[Tensor, "b s"]
    """Log-probability of each chosen code among the k codes, at temperature 1."""
    features: PromptFeatures
    """Prompt features of the same forward pass."""
    vectors: Float[Tensor, "b s w"] | None = None
    """Latent vectors before quantization, from a backend that has a continuous head; else None."""


@dataclass(frozen=True)
class LatentCandidates:
    """Several label guesses for each sample."""

    codes: Int[Tensor, "b m s"]
    """Codes in [0, k)."""
    log_probs: Float[Tensor, "b m s"]
    """Log-probability of each code among the k codes, at temperature 1; their sum ranks a candidate."""


class FoundationBackend(nn.Module, ABC):
    """Predicts latent codes from one frame and an instruction."""

    backend_type: ClassVar[str]
    """Name in a checkpoint's `foundation.json`."""
    spec: LatentSpec
    """Geometry of the codes this backend predicts."""
    draws: Int[Tensor, ""]
    """Batches trained on so far: saved, so that a run that goes on draws what comes next."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))

    def row_draws(self, batch: FoundationBatch) -> RowDraws:
        """Random numbers of one forward pass over `batch`: in training its own, or the next of this model's count.

        In evaluation they are the same every time, and nothing is counted.
        """
        if not self.training:
            return RowDraws.of_validation(len(batch), device=self.draws.device)
        draws = batch.draws or RowDraws.of_process(self.draws, len(batch))
        self.draws.copy_(draws.step + 1)
        return draws

    @classmethod
    @abstractmethod
    def build(cls, config: Any, spec: LatentSpec) -> FoundationBackend:
        """A model to start training from: pretrained where `config.model_name` says so, else small and random.

        Args:
            config: Of this backend's own kind.
            spec: Codes to predict.

        Raises:
            ValueError: If the configuration does not fit the model.
            FileNotFoundError: If `model_name` cannot be found.
        """

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
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> LatentPrediction:
        """Predict codes; labels in `batch` are not looked at.

        Args:
            batch: Frames and instructions.
            temperature: None picks the most likely code of every slot; a positive number samples.
            top_k: Sample among this many most likely codes of a slot only.
            generator: Source of randomness for sampling, on the model's device.
        """

    @abstractmethod
    def sample(
        self,
        batch: FoundationBatch,
        *,
        num_samples: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> LatentCandidates:
        """Draw `num_samples` labels for every sample, in one batch; the prompt is read once."""

    @abstractmethod
    def beam_search(self, batch: FoundationBatch, *, beams: int) -> LatentCandidates:
        """The `beams` labels that a search of that width finds most likely, best first.

        Fewer where there are fewer labels, k^s.
        """

    @abstractmethod
    def merge_adapters(self) -> None:
        """Fold LoRA adapters into the weights, in place; `config_dict` then says there are none."""

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
