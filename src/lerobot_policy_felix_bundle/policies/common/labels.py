"""Latent labels of a training batch, and the interface of their sources.

Shapes: b batch, c codes of one label, s slots, k codebook entries, d width of a code vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from hlrp.latents import LatentSpec

LATENT_CODES, LATENT_VALID = "latent_codes", "latent_valid"


@dataclass(frozen=True)
class Labels:
    """Latent labels of a batch."""

    codes: Int[Tensor, "b c"]
    """Codes in [0, k); -1 if a frame has no label."""
    valid: Bool[Tensor, " b"]
    """False where the label must not be learned, because the episode ends inside the clip."""
    vectors: Float[Tensor, "b c d"] | None = None
    """Latent vectors before quantization, for a VLA that also learns them; otherwise None."""

    @property
    def counted(self) -> Bool[Tensor, " b"]:
        """True for samples whose codes are learned: valid, with a code in every slot."""
        return self.valid & (self.codes >= 0).all(-1)


@runtime_checkable
class LabelSource(Protocol):
    """Source of latent labels: a table of precomputed labels, or a LAQ that encodes the clips of a batch."""

    @property
    def spec(self) -> LatentSpec:
        """Geometry of the label codes."""
        ...

    @property
    def laq_fingerprint(self) -> str:
        """Fingerprint of the LAQ that makes the labels."""
        ...

    @property
    def codebook(self) -> Float[Tensor, "s k d"]:
        """Code vectors of the LAQ that makes the labels."""
        ...

    def label(self, batch: Mapping[str, Any]) -> Labels:
        """Latent labels of the samples of a training batch."""
        ...


def batch_labels(batch: Mapping[str, Any], source: LabelSource | None, spec: LatentSpec) -> Labels:
    """Latent labels of a training batch: from the batch itself if it contains them, or else from `source`.

    Raises:
        ValueError: If there are no labels, or the number of codes differs from `spec.num_codes`.
    """
    codes = batch.get(LATENT_CODES)
    if codes is not None:
        if codes.shape[1:] != (spec.num_codes,):
            raise ValueError(f"{LATENT_CODES} must be (batch, {spec.num_codes}), got {tuple(codes.shape)}")
        valid = batch.get(LATENT_VALID)
        return Labels(codes, (codes >= 0).all(-1) if valid is None else valid.reshape(-1))
    if source is None:
        raise ValueError(
            "no latent labels to train on: write them with hlrp-precompute-latent-codes, name their folder with "
            "--policy.latent_labels_path, name a quantizer that makes them with --policy.latent_targets=online, or put "
            f"{LATENT_CODES} into the batch"
        )
    return source.label(batch)
