"""Read and change the labels of a `FoundationBatch`."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from hlrp.foundation.batch import FoundationBatch


def codes_of(batch: FoundationBatch) -> Tensor:
    """Codes of the labels of `batch`."""
    assert batch.labels is not None
    return batch.labels.require_codes()


def vectors_of(batch: FoundationBatch) -> Tensor:
    """Vectors of the labels of `batch`."""
    assert batch.labels is not None
    return batch.labels.require_vectors()


def with_labels(batch: FoundationBatch, **changes: Tensor | None) -> FoundationBatch:
    """Copy of a labelled batch with other `codes`, `vectors` or `valid`."""
    assert batch.labels is not None
    return replace(batch, labels=replace(batch.labels, **changes))
