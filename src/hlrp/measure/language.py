"""Does the instruction matter? The same frames under another instruction of the dataset.

Shapes: b batch, m frames, s code slots, k codebook entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hlrp.foundation.backends.interfaces import FoundationBackend
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.predictions import device_of
from hlrp.runtime.progress import progress
from hlrp.training.evaluation_mode import evaluation_mode

_NOTHING_TO_SWAP = "every frame has the same instruction, so there is no other one to give"


@dataclass(frozen=True, kw_only=True)
class LanguageFigures:
    """What becomes of the codes when frames keep their labels and get the instruction of another task.

    Figures are None where `reason` says why, and those of accuracy also where no frame is labelled.

    A model that reads the instruction changes its codes and loses accuracy. One that does not may still be right: where
    every task has a scene of its own, the frame says all. So the figures speak for themselves only among tasks that
    share a scene; swap within each scene where a dataset has several.
    """

    frames: int
    """Frames compared."""
    changed_share: float | None
    """Share of frames with at least one code that changes, decoded as at inference."""
    changed_codes: list[float] | None
    """Share of codes that change in each slot. A slot also changes because one before it did."""
    total_variation: list[float] | None
    """Mean distance of each slot's code distributions under both instructions, after the same codes before: half the
    sum of absolute differences, 0 for equal ones and 1 for those that share no code."""
    accuracy: float | None
    """Share of right codes under the frame's own instruction, on labelled frames."""
    swapped_accuracy: float | None
    """The same under the other one."""
    accuracy_drop: float | None
    """`accuracy` minus `swapped_accuracy`: what the instruction is worth."""
    reason: str | None = None
    """Why there are no figures."""

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)


def swapped_instructions(instructions: Iterable[str], *, seed: int = 0) -> dict[str, str]:
    """For each distinct instruction another one, and every one of them once.

    Tasks of several scenes: call it for each scene and join the results.

    Args:
        instructions: Of a dataset, in any order and any number.
        seed: Which goes to which.

    Returns:
        The other instruction by the own one; empty if there is only one.
    """
    distinct = sorted(set(instructions))
    if len(distinct) < 2:
        return {}
    order = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(seed)).tolist()
    following = [*order[1:], order[0]]  # one ring through all of them: nothing stays in its place
    return {distinct[own]: distinct[other] for own, other in zip(order, following, strict=True)}


def language_sensitivity(
    backend: FoundationBackend, batch: FoundationBatch, other_instructions: Sequence[str]
) -> LanguageFigures:
    """Compare one batch with itself under other instructions.

    Args:
        backend: A trained model; left in the mode it was in.
        batch: Frames, and labels where there are any.
        other_instructions: One for each frame, different from its own.

    Raises:
        ValueError: If a frame keeps its instruction, or their number differs from that of the frames.
    """
    return _figures([_compare(backend, batch, other_instructions)])


def language_figures(
    backend: FoundationBackend, batches: Iterable[FoundationBatch], others: Mapping[str, str]
) -> LanguageFigures:
    """Compare any number of batches.

    Args:
        backend: A trained model; left in the mode it was in.
        batches: Held-out frames and their labels.
        others: From `swapped_instructions`; the figures are None with a reason where it is empty.

    Raises:
        ValueError: If an instruction is not in `others`, or there is no batch.
    """
    if not others:
        return _without_figures(_NOTHING_TO_SWAP)
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
    return _figures(compared)


@dataclass(frozen=True)
class _Compared:
    """One batch under both instructions, on the host."""

    changed: Bool[Tensor, "m s"]
    variation: Float[Tensor, "m s"]
    right: Bool[Tensor, "m s"]
    swapped_right: Bool[Tensor, "m s"]
    labelled: Bool[Tensor, " m"]


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
        # Distributions are comparable only after the same codes before, and need no labels: the decoded ones serve.
        given = codes
        own, other = (
            backend.loss(replace(asked, codes=given, valid=None)).logits.float().softmax(-1)
            for asked in (batch, swapped)
        )
    truth = torch.full_like(codes, -1) if batch.codes is None else batch.codes
    labelled = (truth >= 0).all(1)
    return _Compared(
        changed=(codes != swapped_codes).cpu(),
        variation=((own - other).abs().sum(-1) / 2).cpu(),
        right=(codes == truth).cpu(),
        swapped_right=(swapped_codes == truth).cpu(),
        labelled=(labelled if batch.valid is None else labelled & batch.valid).cpu(),
    )


def _figures(compared: Sequence[_Compared]) -> LanguageFigures:
    changed, variation, right, swapped_right, labelled = (
        torch.cat(parts) for parts in zip(*(vars(batch).values() for batch in compared), strict=True)
    )
    accuracy = swapped_accuracy = None
    if labelled.any():
        accuracy, swapped_accuracy = (float(rows[labelled].double().mean()) for rows in (right, swapped_right))
    return LanguageFigures(
        frames=len(changed),
        changed_share=float(changed.any(1).double().mean()),
        changed_codes=changed.double().mean(0).tolist(),
        total_variation=variation.double().mean(0).tolist(),
        accuracy=accuracy,
        swapped_accuracy=swapped_accuracy,
        accuracy_drop=None if accuracy is None or swapped_accuracy is None else accuracy - swapped_accuracy,
    )


def _without_figures(reason: str) -> LanguageFigures:
    return LanguageFigures(
        frames=0, changed_share=None, changed_codes=None, total_variation=None, accuracy=None, swapped_accuracy=None,
        accuracy_drop=None, reason=reason,
    )  # fmt: skip
