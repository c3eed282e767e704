"""Interface of training data: one batch per optimizer step, of which every process reads its own part."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class StepBatches(Protocol):
    """Training batches as a function of the step number, so that a resumed run neither repeats nor skips a batch."""

    def __len__(self) -> int:
        """Number of optimizer steps."""
        ...

    def part(self, step: int, index: int, parts: int) -> Any:
        """Read part `index` of the batch of `step`, if it is divided into `parts` equal parts.

        The concatenation of all parts, in order, is the batch; part 0 of 1 is the whole batch. A part depends on these
        arguments only, and reading it does not read the other parts.

        Raises:
            ValueError: If the batch size is not a multiple of `parts`; see `part_rows`.
        """
        ...


def part_rows(batch_size: int, index: int, parts: int) -> slice:
    """Rows of part `index`, if a batch is divided into `parts` parts of equally many consecutive rows.

    Raises:
        ValueError: If `batch_size` is not a multiple of `parts`.
    """
    require_divisible(batch_size, parts)
    # Consecutive rows, so that the parts of all processes in the order of ranks are the batch in its own order.
    share = batch_size // parts
    return slice(index * share, (index + 1) * share)


def require_divisible(batch_size: int, parts: int) -> None:
    """Raise unless `batch_size` is a multiple of `parts`.

    Raises:
        ValueError: If `batch_size` is not a multiple of `parts`.
    """
    if batch_size % parts:
        raise ValueError(
            f"batch_size={batch_size} does not divide into {parts} equal parts, one for each process and accumulated "
            f"pass; use a multiple of {parts}"
        )
