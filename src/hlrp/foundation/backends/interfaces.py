"""Interface of all foundation backends, the types of their results, and how the class of a backend is found by name.

Shapes: x candidate labels of one sample, p values of a sample over which its cross-entropy is averaged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hlrp.foundation.backends.choice import Choice
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.config import BACKENDS, DTYPE_NAMES, BackendConfig
from hlrp.latents import LatentSpec
from hlrp.runtime.checks import require_number
from hlrp.runtime.class_paths import load_class
from hlrp.training.evaluation_mode import inference
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
    accuracy: Float[Tensor, " q"]
    """Share of counted samples with the correct code, per slot; autoregressive models get the true previous codes."""
    logits: Float[Tensor, "b q k"]
    """Logits of the k codes in every slot."""
    features: PromptFeatures
    """Prompt features of the same forward pass, with gradients."""
    terms: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Unweighted parts of `loss` by name, for the log; empty if there is only one part."""

    @classmethod
    def of(
        cls,
        entropy: Float[Tensor, "b p"],
        *,
        logits: Float[Tensor, "b q k"],
        codes: Int[Tensor, "b q"],
        counted: Bool[Tensor, " b"],
        features: PromptFeatures,
        vector_loss: Float[Tensor, " b"] | None = None,
        vector_weight: float = 0.0,
    ) -> FoundationLoss:
        """Assemble the loss of a batch; samples that are not counted contribute exactly 0.

        Args:
            entropy: Cross-entropy in nats of the codes or answer tokens of each sample.
            logits: Logits of the k codes in every slot.
            codes: True codes; any value in [0, k) where a sample is not counted.
            counted: Samples that count.
            features: Prompt features of the same forward pass.
            vector_loss: Loss of a continuous head, 0 where a sample is not counted; None if there is no such head.
            vector_weight: Weight of `vector_loss`.
        """
        num_counted = counted.sum().clamp_min(1)
        per_sample, terms = torch.where(counted, entropy.mean(1), 0.0), {}
        if vector_loss is not None:
            terms = {"codes": per_sample.sum() / num_counted, "vectors": vector_loss.sum() / num_counted}
            per_sample = per_sample + vector_weight * vector_loss
        right = (logits.argmax(-1) == codes) & counted[:, None]
        return cls(
            loss=per_sample.sum() / num_counted,
            per_sample=per_sample,
            counted=counted,
            accuracy=right.sum(0) / num_counted,
            logits=logits,
            features=features,
            terms=terms,
        )


@dataclass(frozen=True)
class LatentPrediction:
    """Predicted latent actions."""

    codes: Int[Tensor, "b q"]
    """Predicted codes in [0, k)."""
    log_probs: Float[Tensor, "b q"]
    """Log-probability of each chosen code among the k codes, at temperature 1."""
    features: PromptFeatures
    """Prompt features of the same forward pass."""
    vectors: Float[Tensor, "b q v"] | None = None
    """Predicted latent vectors before quantization; None if the backend has no continuous head."""


@dataclass(frozen=True)
class LatentCandidates:
    """Several candidate labels for each sample."""

    codes: Int[Tensor, "b x q"]
    """Candidate codes in [0, k)."""
    log_probs: Float[Tensor, "b x q"]
    """Log-probability of each code among the k codes, at temperature 1; the sum over slots ranks a candidate."""


class FoundationBackend(nn.Module, ABC):
    """Model that predicts latent codes from one frame per camera and an instruction.

    A subclass implements the abstract methods. It may also declare what other parts of the project need of it:
    `repeated_blocks`, `lora_targets`, `asset_files` and `legacy_model`; its configuration declares `needs_vectors`.
    """

    repeated_blocks: ClassVar[tuple[str, ...]] = ()
    """Class names of the layers that the model repeats. Each is sharded by FSDP and compiled by torch.compile alone."""
    lora_targets: ClassVar[str] = ""
    """Regular expression for the names, in this module, of the linear layers that get PEFT adapters by default. Empty:
    none, so that a command has to name them."""
    asset_files: ClassVar[tuple[str, ...]] = ()
    """JSON files that `save_assets` writes, and without which a checkpoint is refused as incomplete."""
    config: BackendConfig
    """Options that this backend was built with."""
    spec: LatentSpec
    """Geometry of the codes that this backend predicts."""
    draws: Int[Tensor, ""]
    """Training batches so far. Saved as a buffer, so that a resumed run continues the sequence of random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))

    @property
    def backend_type(self) -> str:
        """Name of this backend in a checkpoint's `foundation.json`."""
        return BackendConfig.get_choice_name(type(self.config))

    @property
    def legacy_model(self) -> nn.Module | None:
        """Part that holds the weights named `vla_model.` in Lightning checkpoints of an earlier version; None: none."""
        return None

    def config_dict(self) -> dict[str, Any]:
        """Configuration as plain JSON values, which `from_assets` reads."""
        return self.config.to_dict()

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

    @inference
    def predict(
        self,
        batch: FoundationBatch,
        *,
        temperature: float | None = None,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> LatentPrediction:
        """Predict codes in evaluation mode and without gradients; labels in `batch` are ignored.

        Args:
            batch: Frames and instructions.
            temperature: None takes the most likely code of every slot; a positive number samples at this temperature.
            top_k: Sample only among this many most likely codes of a slot; None samples among all codes.
            generator: Source of randomness for sampling, on the model's device.
        """
        return self._predict(batch, Choice(temperature, top_k, generator))

    @inference
    def sample(
        self,
        batch: FoundationBatch,
        *,
        num_samples: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> LatentCandidates:
        """Draw `num_samples` candidate labels for every sample, in one batch; see `predict` for the options."""
        return self._sample(batch, num_samples, Choice(temperature, top_k, generator))

    @inference
    def beam_search(self, batch: FoundationBatch, *, beams: int) -> LatentCandidates:
        """The `beams` most likely labels by beam search of this width, best first.

        If there are fewer than `beams` possible labels, k^q, all of them are returned.

        Raises:
            ValueError: If `beams` is not positive.
        """
        require_number("beams", beams, at_least=1)
        return self._beam_search(batch, beams)

    @abstractmethod
    def _predict(self, batch: FoundationBatch, choice: Choice) -> LatentPrediction:
        """Implementation of `predict`, which sets evaluation mode and turns gradients off."""

    @abstractmethod
    def _sample(self, batch: FoundationBatch, num_samples: int, choice: Choice) -> LatentCandidates:
        """Implementation of `sample`; the prompt should be computed once for all candidates."""

    @abstractmethod
    def _beam_search(self, batch: FoundationBatch, beams: int) -> LatentCandidates:
        """Implementation of `beam_search`."""

    @abstractmethod
    def merge_adapters(self) -> None:
        """Merge LoRA adapters into the weights, in place, and turn LoRA off in this model's configuration."""

    @abstractmethod
    def features(self, batch: FoundationBatch) -> PromptFeatures:
        """Prompt features of `batch`: one forward pass without decoding; gradients flow if they are enabled."""

    @abstractmethod
    def save_assets(self, directory: Path) -> None:
        """Write architecture, tokenizer and processor as JSON files; the weights are saved elsewhere."""

    @classmethod
    @abstractmethod
    def from_assets(cls, directory: Path, *, config: Mapping[str, Any], spec: LatentSpec) -> FoundationBackend:
        """Rebuild the architecture from the files of `save_assets`, offline; the weights are not loaded yet."""

    @classmethod
    def large_parts(cls, directory: Path, *, config: Mapping[str, Any]) -> nn.Module | None:
        """The parts that hold most weights, as the files of `save_assets` describe them; None if they are not known.

        It is called on the device "meta" before `from_assets`, to compare their size with that of the file of weights
        before memory is taken. `directory` and `config` are as in `from_assets`.
        """
        return None


def cross_entropy(logits: Float[Tensor, "b p classes"], targets: Int[Tensor, "b p"]) -> Float[Tensor, "b p"]:
    """Cross-entropy in nats of every target of every sample."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)


def backend_class(name: str) -> type[FoundationBackend]:
    """Class of the model that is registered under `name`; see `register_backend`.

    Raises:
        TypeError: If the registered class is no `FoundationBackend`.
    """
    return load_class(BACKENDS[name], FoundationBackend)


def build_backend(config: BackendConfig, spec: LatentSpec) -> FoundationBackend:
    """Build a model to start training from, by the class that belongs to `config`; see `FoundationBackend.build`."""
    return backend_class(BackendConfig.get_choice_name(type(config))).build(config, spec)
