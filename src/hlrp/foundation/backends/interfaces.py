"""Interface of all foundation backends, and the types of their results.

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
from hlrp.training.row_draws import RowDraws

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPE_NAMES}
"""Torch dtype by its name in a configuration."""


@dataclass(frozen=True)
class PromptFeatures:
    """Hidden states of images and instruction, before any code: the input of an action expert."""

    hidden: Float[Tensor, "b l d"]
    """Hidden states of the last layer over the prompt, padded on the left."""
    mask: Bool[Tensor, "b l"]
    """True on tokens of the prompt, False on padding."""


@dataclass(frozen=True)
class FoundationLoss:
    """Loss of a batch, with the values that are logged."""

    loss: Float[Tensor, ""]
    """Mean of `per_sample` over the samples that count; 0 if no sample counts."""
    per_sample: Float[Tensor, " b"]
    """Loss of each sample: cross-entropy in nats, plus the weighted loss of a continuous head; 0 if not counted."""
    counted: Bool[Tensor, " b"]
    """True where the sample is valid and every slot is labelled."""
    accuracy: Float[Tensor, " s"]
    """Share of counted samples with the correct code, per slot; autoregressive models get the true previous codes."""
    logits: Float[Tensor, "b s k"]
    """Logits of the k codes in every slot."""
    features: PromptFeatures
    """Prompt features of the same forward pass, with gradients."""
    terms: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Unweighted parts of `loss` by name, for the log; empty if there is only one part."""


@dataclass(frozen=True)
class LatentPrediction:
    """Predicted latent actions."""

    codes: Int[Tensor, "b s"]
    """Predicted codes in [0, k)."""
    log_probs: Float[Tensor, "b s"]
    """Log-probability of each chosen code among the k codes, at temperature 1."""
    features: PromptFeatures
    """Prompt features of the same forward pass."""
    vectors: Float[Tensor, "b s w"] | None = None
    """Predicted latent vectors before quantization; None if the backend has no continuous head."""


@dataclass(frozen=True)
class LatentCandidates:
    """Several candidate labels for each sample."""

    codes: Int[Tensor, "b m s"]
    """Candidate codes in [0, k)."""
    log_probs: Float[Tensor, "b m s"]
    """Log-probability of each code among the k codes, at temperature 1; the sum over slots ranks a candidate."""


class FoundationBackend(nn.Module, ABC):
    """Model that predicts latent codes from one frame per camera and an instruction."""

    backend_type: ClassVar[str]
    """Name of this backend in a checkpoint's `foundation.json`."""
    spec: LatentSpec
    """Geometry of the codes that this backend predicts."""
    draws: Int[Tensor, ""]
    """Training batches so far. Saved as a buffer, so that a resumed run continues the sequence of random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))

    def row_draws(self, batch: FoundationBatch) -> RowDraws:
        """Random numbers of one forward pass over `batch`.

        Training uses `batch.draws`, or draws numbered by this model's count of batches, and advances this count.
        Evaluation always uses the same numbers and leaves the count unchanged.
        """
        if not self.training:
            return RowDraws.of_validation(len(batch), device=self.draws.device)
        draws = batch.draws or RowDraws.of_process(self.draws, len(batch))
        self.draws.copy_(draws.step + 1)
        return draws

    @classmethod
    @abstractmethod
    def build(cls, config: Any, spec: LatentSpec) -> FoundationBackend:
        """A model to start training from: pretrained if `config.model_name` is given, otherwise small and random.

        Args:
            config: Configuration of this backend's own class.
            spec: Geometry of the codes to predict.

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
        """Loss of `batch`: cross-entropy of the codes, plus the weighted loss of a continuous head, if there is one.

        A sample that is invalid or has an unlabelled slot contributes exactly zero loss and gradient.

        Raises:
            ValueError: If the batch has no codes, or the number of codes differs from `spec.num_codes`.
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
        """Predict codes; labels in `batch` are ignored.

        Args:
            batch: Frames and instructions.
            temperature: None takes the most likely code of every slot; a positive number samples at this temperature.
            top_k: Sample only among this many most likely codes of a slot; None samples among all codes.
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
        """Draw `num_samples` candidate labels for every sample, in one batch; the prompt is computed once."""

    @abstractmethod
    def beam_search(self, batch: FoundationBatch, *, beams: int) -> LatentCandidates:
        """The `beams` most likely labels by beam search of this width, best first.

        If there are fewer than `beams` possible labels, k^s, all of them are returned.
        """

    @abstractmethod
    def merge_adapters(self) -> None:
        """Merge LoRA adapters into the weights, in place, and turn LoRA off in this model's configuration."""

    @abstractmethod
    def features(self, batch: FoundationBatch) -> PromptFeatures:
        """Prompt features of `batch`: one forward pass without decoding; gradients flow if they are enabled."""

    @abstractmethod
    def config_dict(self) -> dict[str, Any]:
        """Configuration as plain JSON values, which `from_assets` reads."""

    @abstractmethod
    def save_assets(self, directory: Path) -> None:
        """Write architecture, tokenizer and processor as JSON files; the weights are saved elsewhere."""

    @classmethod
    @abstractmethod
    def from_assets(cls, directory: Path, *, config: Mapping[str, Any], spec: LatentSpec) -> FoundationBackend:
        """Rebuild the architecture from the files of `save_assets`, offline; the weights are not loaded yet."""
