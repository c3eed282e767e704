"""Batches of a training run as PyTorch data loaders: every process reads its own part of the batch of each step.

The batch of an optimizer step is divided into world_size * accumulate equal parts, one for each process and each
backward pass. Lightning divides the loss by `accumulate`, and DDP and FSDP average gradients over processes. If the
loss is a mean over rows, its gradient is therefore the same however the batch is divided.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import lightning.pytorch as pl
from torch.utils.data import DataLoader, Dataset, Sampler

from hlrp.training.step_batches import StepBatches


class _PartKey(NamedTuple):
    """Arguments of `StepBatches.part`."""

    step: int
    index: int
    parts: int


class _PartsFromCurrentStep(Sampler[_PartKey]):
    """Sampler of the batch parts of this process, from the trainer's current step on.

    The sampler has no length, so that Lightning never starts a second epoch. In a resumed run, Lightning iterates after
    it has loaded the state, so that sampling starts at the step of the state.
    """

    def __init__(self, trainer: pl.Trainer, steps: int) -> None:
        self._trainer, self._steps = trainer, steps

    def __iter__(self) -> Iterator[_PartKey]:
        rank, processes = self._trainer.global_rank, self._trainer.world_size
        accumulate = self._trainer.accumulate_grad_batches
        for step in range(self._trainer.global_step, self._steps):
            for micro in range(accumulate):
                yield _PartKey(step, micro * processes + rank, processes * accumulate)


class _BatchParts(Dataset[Any]):
    """Adapter of `StepBatches` to a PyTorch dataset whose keys are `_PartKey`."""

    def __init__(self, batches: StepBatches) -> None:
        self._batches = batches

    def __getitem__(self, key: _PartKey) -> Any:
        return self._batches.part(*key)


@dataclass(frozen=True)
class StepData:
    """Training and validation data of a run."""

    train: StepBatches
    """Training batches by step number, so that a resumed run neither repeats nor skips a batch."""
    val: Dataset[Any] | None
    """Validation batches; None for none. Every process validates on all of them, so that all get the same metrics."""
    num_workers: int = field(kw_only=True)
    """Number of worker processes that prepare batches, for each training process."""

    def train_loader(self, trainer: pl.Trainer) -> DataLoader[Any]:
        """Loader of this process's parts of the training batches, from the trainer's current step on."""
        return DataLoader(
            _BatchParts(self.train),
            batch_size=None,  # a part is a batch already
            sampler=_PartsFromCurrentStep(trainer, len(self.train)),
            num_workers=self.num_workers,
            collate_fn=_unchanged,
            worker_init_fn=_ignore_signals,
        )

    def val_loader(self) -> DataLoader[Any] | None:
        """Loader of the validation batches, in order; None without validation data."""
        return None if self.val is None else DataLoader(self.val, batch_size=None, collate_fn=_unchanged)


def _unchanged(batch: Any) -> Any:
    # PyTorch's default `collate_fn` converts what it finds inside a batch; worker processes cannot pickle a lambda.
    return batch


def _ignore_signals(worker: int) -> None:
    """Let a loader's worker process ignore SIGINT and SIGTERM, which are left to the trainer.

    Ctrl-C and clusters signal all processes of a job. A worker that ends at once would make the trainer fail before it
    has saved its state. Workers end with their training process anyway.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
