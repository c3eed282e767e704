"""Measure how much a foundation model uses the instruction, by swapping instructions between frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hlrp.foundation.backends.interfaces import FoundationBackend
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.predictions import device_of
from hlrp.latents import NO_LABEL, LatentActions
from hlrp.runtime.progress import progress
from hlrp.training.evaluation_mode import evaluation_mode

_NOTHING_TO_SWAP = "every frame has the same instruction, so there is no other one to give"


@dataclass(frozen=True, kw_only=True)
class LanguageMetrics:
    """Metrics of predicted codes when frames keep their labels but get the instruction of another task.

    If `reason` is set, all metrics are None. The accuracies are also None if no frame is labelled.

    A model that uses the instruction changes its codes and loses accuracy. A model that ignores the instruction can
    still be accurate if every task has its own scene, because the frame then identifies the task. Compare only tasks
    that share a scene; in a dataset of several scenes, swap instructions within each scene.
    """

    frames: int
    """Frames compared."""
    changed_share: float | None
    """Share of frames in which at least one code changes, decoded as at inference."""
    changed_codes: list[float] | None
    """Share of codes that change, per slot. A slot of an autoregressive model also changes after an earlier change."""
    total_variation: list[float] | None
    """Mean total variation distance, per slot, between the code distributions under both instructions, given the same
    previous codes: half the sum of absolute differences, 0 for equal and 1 for disjoint distributions."""
    accuracy: float | None
    """Share of correct codes under the frame's own instruction, on labelled frames."""
    swapped_accuracy: float | None
    """Share of correct codes under the swapped instruction, on labelled frames."""
    accuracy_drop: float | None
    """`accuracy` minus `swapped_accuracy`: accuracy that the model gains from the instruction."""
    reason: str | None = None
    """Why nothing was measured; None if the metrics are present."""

    def to_dict(self) -> dict[str, object]:
        """Metrics as plain values, for JSON."""
        return asdict(self)


def swapped_instructions(instructions: Iterable[str], *, seed: int = 0) -> dict[str, str]:
    """Assign to each distinct instruction another one, so that each is used once.

    If a dataset has several scenes, call this function per scene and join the results.

    Args:
        instructions: Instructions of a dataset, in any order, with or without repetitions.
        seed: Seed of the assignment.

    Returns:
        Other instruction by own instruction; empty if there is only one instruction.
    """
    distinct = sorted(set(instructions))
    if len(distinct) < 2:
        return {}
    order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(seed)).tolist()
    following = [*order[1:], order[0]]  # a single cycle, so that no instruction is assigned to itself
    return {distinct[own]: distinct[other] for own, other in zip(order, following, strict=True)}


def language_sensitivity(
    backend: FoundationBackend, batch: FoundationBatch, other_instructions: Sequence[str]
) -> LanguageMetrics:
    """Compare predicted codes of one batch under its own and under other instructions.

    Args:
        backend: A trained model; its training mode is restored afterwards.
        batch: Frames with instructions, and labels if the dataset has any.
        other_instructions: One instruction per frame, different from the frame's own.

    Raises:
        ValueError: If a frame keeps its instruction, or their number differs from that of the frames.
    """
    return _metrics([_compare(backend, batch, other_instructions)])


def language_metrics(
    backend: FoundationBackend, batches: Iterable[FoundationBatch], others: Mapping[str, str]
) -> LanguageMetrics:
    """Compare predicted codes of several batches under own and swapped instructions.

    Args:
        backend: A trained model; its training mode is restored afterwards.
        batches: Held-out frames with their labels.
        others: From `swapped_instructions`; if empty, the metrics are None and `reason` says why.

    Raises:
        ValueError: If an instruction is not in `others`, or there is no batch.
    """
    if not others:
        return _not_measured(_NOTHING_TO_SWAP)
    compared = []
    for batch in progress(batches, "swapping instructions"):
        missing = set(batch.instructions) - set(others)
        if missing:
            raise ValueError(
                f"no other instruction for {min(missing)!r}; swap the instructions of the whole dataset, held-out "
                "episodes included"
            )
        compared.append(_compare(backend, batch, [others[own] for own in batch.instructions]))
    if not compared:
        raise ValueError("expected at least one batch of frames, got none")
    return _metrics(compared)


@dataclass(frozen=True)
class _Compared:
    """Comparison of one batch under both instructions, on the CPU."""

    changed: Bool[Tensor, "f q"]
    variation: Float[Tensor, "f q"]
    right: Bool[Tensor, "f q"]
    swapped_right: Bool[Tensor, "f q"]
    labelled: Bool[Tensor, " f"]


def _compare(backend: FoundationBackend, batch: FoundationBatch, others: Sequence[str]) -> _Compared:
    if len(others) != len(batch):
        raise ValueError(f"{len(batch)} samples came with {len(others)} instructions; pass one for each")
    for own, other in zip(batch.instructions, others, strict=True):
        if own == other:
            raise ValueError(f"a frame would keep its instruction {own!r}; give every frame another one")
    batch = batch.to(device_of(backend))
    swapped = replace(batch, instructions=list(others))
    with evaluation_mode(backend), torch.no_grad():
        codes, swapped_codes = backend.predict(batch).codes, backend.predict(swapped).codes
        labels = batch.labels or LatentActions.of_codes(torch.full_like(codes, NO_LABEL))
        # Code distributions are comparable only given the same previous codes. The decoded codes serve as these, since
        # this needs no labels. The labels keep their vectors, which the loss of a continuous head asks for.
        given = replace(labels, codes=codes)
        own, other = (
            backend.loss(replace(asked, labels=given)).logits.float().softmax(-1) for asked in (batch, swapped)
        )
    truth = labels.require_codes()
    return _Compared(
        changed=(codes != swapped_codes).cpu(),
        variation=((own - other).abs().sum(-1) / 2).cpu(),
        right=(codes == truth).cpu(),
        swapped_right=(swapped_codes == truth).cpu(),
        labelled=labels.counted.cpu(),
    )


def _metrics(compared: Sequence[_Compared]) -> LanguageMetrics:
    changed = torch.cat([batch.changed for batch in compared])
    variation = torch.cat([batch.variation for batch in compared])
    right = torch.cat([batch.right[batch.labelled] for batch in compared])
    swapped_right = torch.cat([batch.swapped_right[batch.labelled] for batch in compared])
    accuracy = swapped_accuracy = None
    if len(right):
        accuracy, swapped_accuracy = (float(rows.double().mean()) for rows in (right, swapped_right))
    return LanguageMetrics(
        frames=len(changed),
        changed_share=float(changed.any(1).double().mean()),
        changed_codes=changed.double().mean(0).tolist(),
        total_variation=variation.double().mean(0).tolist(),
        accuracy=accuracy,
        swapped_accuracy=swapped_accuracy,
        accuracy_drop=None if accuracy is None or swapped_accuracy is None else accuracy - swapped_accuracy,
    )


def _not_measured(reason: str) -> LanguageMetrics:
    return LanguageMetrics(
        frames=0, changed_share=None, changed_codes=None, total_variation=None, accuracy=None, swapped_accuracy=None,
        accuracy_drop=None, reason=reason,
    )  # fmt: skip
