"""What training reads: one batch per optimizer step, of which every process takes its own part."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class StepBatches(Protocol):
    """Training data as a function of the step number, so that resuming repeats nothing and skips nothing."""

    def __len__(self) -> int:
        """Number of optimizer steps."""
        ...

    def part(self, step: int, index: int, parts: int) -> Any:
        """Part `index` of `parts` equal ones of the batch of `step`, without reading the others.

        Part 0 of 1 is the whole batch; the parts in order, one after the other, are its rows in order; each part
        depends on its arguments alone.

        Raises:
            ValueError: If the batch does not divide into equal parts; see `part_rows`.
        """
        ...


def part_rows(batch_size: int, index: int, parts: int) -> slice:
    """Rows of part `index` of `parts`: consecutive ones, so that parts joined in the order of processes are the batch.

    Raises:
        ValueError: If `batch_size` does not divide into `parts`.
    """
    require_divisible(batch_size, parts)
    share = batch_size // parts
    return slice(index * share, (index + 1) * share)


def require_divisible(batch_size: int, parts: int) -> None:
    """Refuse a batch that does not fall into `parts` equal parts.

    Raises:
        ValueError: If it does not.
    """
    if batch_size % parts:
        raise ValueError(
            f"batch_size={batch_size} does not divide into {parts} equal parts, one for each process and accumulated "
            f"pass; use a multiple of {parts}"
        )
