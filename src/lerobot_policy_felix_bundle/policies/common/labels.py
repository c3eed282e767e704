"""Latent labels of a training batch, wherever they come from.

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
    """Latent actions of a batch."""

    codes: Int[Tensor, "b c"]
    """Codes in [0, k), or -1 where a frame has no label."""
    valid: Bool[Tensor, " b"]
    """False where the clip was cut by the end of its episode."""
    vectors: Float[Tensor, "b c d"] | None = None
    """Latent vectors before quantization, for a VLA that learns them too."""

    @property
    def counted(self) -> Bool[Tensor, " b"]:
        """Samples that teach: valid, with every slot filled."""
        return self.valid & (self.codes >= 0).all(-1)


@runtime_checkable
class LabelSource(Protocol):
    """Where labels of a dataset come from: a table, or a quantizer that looks at the batch."""

    @property
    def spec(self) -> LatentSpec:
        """Geometry of the codes."""
        ...

    @property
    def laq_fingerprint(self) -> str:
        """The quantizer whose codes these are."""
        ...

    @property
    def codebook(self) -> Float[Tensor, "s k d"]:
        """Its code vectors."""
        ...

    def label(self, batch: Mapping[str, Any]) -> Labels:
        """Labels of a training batch."""
        ...


def batch_labels(batch: Mapping[str, Any], source: LabelSource | None, spec: LatentSpec) -> Labels:
    """Labels of a training batch: from the batch itself if it carries them, else from `source`.

    Raises:
        ValueError: If there are neither, naming the remedies, or they are of another geometry.
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
