"""Latent labels of a training batch, and the interface of their sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from hlrp.data.labels import CODES, VALID
from hlrp.latents import LatentActions, LatentSpec


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
    def codebook(self) -> Float[Tensor, "s k v"]:
        """Code vectors of the LAQ that makes the labels."""
        ...

    def label(self, batch: Mapping[str, Any]) -> LatentActions:
        """Latent labels of the samples of a training batch."""
        ...


def batch_labels(batch: Mapping[str, Any], source: LabelSource | None, spec: LatentSpec) -> LatentActions:
    """Latent labels of a training batch: from the batch itself if it contains them, or else from `source`.

    Raises:
        ValueError: If there are no labels, or the number of codes differs from `spec.num_codes`.
    """
    codes = batch.get(CODES)
    if codes is not None:
        if codes.shape[1:] != (spec.num_codes,):
            raise ValueError(f"{CODES} must be (batch, {spec.num_codes}), got {tuple(codes.shape)}")
        valid = batch.get(VALID)
        labels = LatentActions.of_codes(codes)
        return labels if valid is None else replace(labels, valid=valid.reshape(-1))
    if source is None:
        raise ValueError(
            "no latent labels to train on: write them with hlrp-precompute-latent-codes, name their folder with "
            "--policy.latent_labels_path, name a quantizer that makes them with --policy.latent_targets=online, or put "
            f"{CODES} into the batch"
        )
    return source.label(batch)
