"""Measure a foundation model on the held-out frames of its training datasets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from hlrp.data.observation_sources import ObservationSource
from hlrp.foundation.backends import FoundationBackend
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.predictions import CodePredictions
from hlrp.measure.code_accuracy import CodeAccuracy, LastCodeGuess, code_accuracy, code_counts, validation_log
from hlrp.measure.code_accuracy import last_code_guess as guess_last_code
from hlrp.measure.language import LanguageMetrics, language_metrics, swapped_instructions

_LANGUAGE_FRAMES = 512
"""About how many held-out frames are predicted again under another instruction."""


@dataclass(frozen=True)
class HeldOutMetrics:
    """Metrics of a foundation model on the held-out frames of its training datasets."""

    quality: CodeAccuracy
    language: LanguageMetrics
    """Metrics of the same frames under the instructions of other tasks."""


def measure_held_out(
    backend: FoundationBackend,
    predictions: CodePredictions,
    batches: Sequence[FoundationBatch],
    sources: Sequence[ObservationSource],
) -> HeldOutMetrics:
    """Measure the predicted codes of all held-out frames, and how much they depend on the instruction.

    Args:
        backend: The model.
        predictions: Predictions of `backend` for the frames of `batches`, in the same order.
        batches: All held-out frames of all `sources`, in the order of the sources.
        sources: Datasets of the run.
    """
    return HeldOutMetrics(_code_metrics(predictions, sources), _language_metrics(backend, batches, sources))


def validation_metrics(sources: Sequence[ObservationSource]) -> Callable[[CodePredictions], dict[str, float]]:
    """Return the function that computes the metrics of a validation from its predictions, by their names in the log."""
    counts, codebook_size = _training_counts(sources), sources[0].spec.codebook_size

    def measure(predictions: CodePredictions) -> dict[str, float]:
        return validation_log(code_accuracy(predictions, codebook_size=codebook_size, training_counts=counts))

    return measure


def _code_metrics(predictions: CodePredictions, sources: Sequence[ObservationSource]) -> CodeAccuracy:
    # Episodes of every dataset are numbered from 0; an offset keeps them apart for the bootstrap over episodes.
    offsets = torch.tensor([0, *(len(source.episode) for source in sources[:-1])]).cumsum(0)
    episode = torch.cat(
        [source.episode[source.held_out.index] + offset for source, offset in zip(sources, offsets, strict=True)]
    )
    return code_accuracy(
        predictions,
        codebook_size=sources[0].spec.codebook_size,
        training_counts=_training_counts(sources),
        episode=episode,
        last_code=_last_code(sources[0]) if len(sources) == 1 else None,
    )


def _training_counts(sources: Sequence[ObservationSource]) -> Int[Tensor, "q k"] | None:
    """Count the training frames of each code of each slot; None if labels are made during training."""
    counts = [
        code_counts(source.labels.codes[source.train.index], source.spec.codebook_size)
        for source in sources
        if source.labels is not None
    ]
    return torch.stack(counts).sum(0) if len(counts) == len(sources) else None


def _last_code(source: ObservationSource) -> LastCodeGuess | None:
    """Measure the guess that the codes of the clip before frame t repeat; None if labels are made during training."""
    labels = source.labels
    if labels is None:
        return None
    span = source.spec.frame_deltas(source.fps)[-1]
    return guess_last_code(labels.actions, source.episode, source.held_out.index, span=span)


def _language_metrics(
    backend: FoundationBackend, batches: Sequence[FoundationBatch], sources: Sequence[ObservationSource]
) -> LanguageMetrics:
    others = swapped_instructions(text for source in sources for text in source.instructions)
    # A batch holds neighbouring frames: batches at even distances show more episodes than the first ones.
    enough = max(_LANGUAGE_FRAMES // len(batches[0]), 1)
    every = max(len(batches) // enough, 1)
    return language_metrics(backend, batches[::every], others)
