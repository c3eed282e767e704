"""One Lightning run: interruptible, resumable to the step, with its curve kept as CSV."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, Dataset, Sampler

from hlrp.files import refuse_existing

CURVES_FILE = "curves.csv"
_LOG_DIR = "log"


class _StepsFrom(Sampler[int]):
    """Step numbers `first` … `last - 1`; without a length, so that Lightning never starts a second epoch."""

    def __init__(self, first: int, last: int) -> None:
        self._steps = range(first, last)

    def __iter__(self) -> Iterator[int]:
        return iter(self._steps)


class StepData(pl.LightningDataModule):
    """Training batches that are a function of the step number, so that resuming repeats nothing and skips nothing.

    Args:
        train: Item `i` is the whole batch of step `i`.
        val: Items are whole batches, or None.
        num_workers: Worker processes that prepare batches.
    """

    def __init__(self, train: Dataset[Any], val: Dataset[Any] | None, *, num_workers: int) -> None:
        super().__init__()
        self._train, self._val, self._num_workers = train, val, num_workers

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches from the trainer's current step on."""
        assert self.trainer is not None
        steps = _StepsFrom(self.trainer.global_step, len(self._train))  # pyright: ignore[reportArgumentType]
        return DataLoader(
            self._train, batch_size=None, sampler=steps, num_workers=self._num_workers, collate_fn=_as_it_is
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Validation batches in order."""
        return [] if self._val is None else DataLoader(self._val, batch_size=None, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    return batch


class _DrawsByStep(pl.Callback):
    """Random numbers of a step (dropout, shifts, restarted codes) depend on its number: a resumed run repeats them."""

    def __init__(self) -> None:
        self._seed = torch.initial_seed()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        torch.manual_seed(hash((self._seed, trainer.global_step)) % 2**63)


class TrainingRun:
    """Where a run keeps its state until `output_dir` can be written complete.

    Everything unfinished lies in the sibling folder `<output_dir>.training`.
    """

    def __init__(self, output_dir: Path | str, *, resume: bool) -> None:
        """Claim the folders.

        Raises:
            FileExistsError: If `output_dir` is complete already, or an unfinished run lies there and `resume` is false.
            FileNotFoundError: If `resume` is true and there is nothing to resume.
        """
        self.output_dir = Path(output_dir)
        self.scratch = self.output_dir.with_name(f"{self.output_dir.name}.training")
        self._last = self.scratch / "last.ckpt"
        refuse_existing(self.output_dir)
        if self.scratch.exists() and not self._last.is_file():
            error = FileNotFoundError if resume else FileExistsError
            raise error(
                f"{self.scratch} is of a run that stopped before it saved a state, or still runs; "
                f"remove {self.scratch} and run without --resume"
            )
        if resume and not self._last.is_file():
            raise FileNotFoundError(f"nothing to resume: {self._last} does not exist; run without --resume")
        if not resume and self.scratch.exists():
            raise FileExistsError(
                f"{self.scratch} holds an unfinished run; continue it with --resume=true or remove the folder"
            )
        self._resume = resume

    def fit(
        self,
        module: pl.LightningModule,
        data: StepData,
        *,
        steps: int,
        save_every: int,
        validate_every: int | None = None,
        device: str,
        precision: str = "32-true",
        log_every: int = 10,
    ) -> dict[str, float]:
        """Train for `steps` optimizer steps in all, counting those before a resume; returns the last logged figures."""
        checkpoint = ModelCheckpoint(
            dirpath=self.scratch,
            save_last=True,
            save_top_k=0,
            every_n_train_steps=save_every,
            enable_version_counter=False,
        )
        trainer = pl.Trainer(
            max_steps=steps,
            max_epochs=-1,
            accelerator={"cuda": "gpu", "cpu": "cpu", "mps": "mps"}[torch.device(device).type],
            devices=1,
            precision=precision,  # pyright: ignore[reportArgumentType]
            logger=CSVLogger(self.scratch, name=_LOG_DIR),
            callbacks=[checkpoint, _DrawsByStep(), TQDMProgressBar(refresh_rate=10)],
            val_check_interval=validate_every,
            limit_val_batches=None if validate_every else 0,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            gradient_clip_val=1.0,
            log_every_n_steps=log_every,
        )
        trainer.fit(module, datamodule=data, ckpt_path=self._last if self._resume else None, weights_only=True)
        if trainer.global_step < steps:
            raise KeyboardInterrupt(f"stopped at step {trainer.global_step} of {steps}")
        if validate_every and not trainer.callback_metrics:  # resumed when nothing was left to train
            trainer.validate(module, datamodule=data, verbose=False)
        return {name: float(value) for name, value in trainer.callback_metrics.items()}

    def finish(self) -> None:
        """Keep the curve, drop the rest; call when `output_dir` is complete."""
        parts = (self.scratch / _LOG_DIR).glob("version_*/metrics.csv")
        _join_curves(
            sorted(parts, key=lambda path: int(path.parent.name.removeprefix("version_"))),
            self.output_dir / CURVES_FILE,
        )
        shutil.rmtree(self.scratch)


def _join_curves(parts: Sequence[Path], target: Path) -> None:
    """Write the curves of a run and its resumptions as one; steps that were repeated count once."""
    rows: list[dict[str, str]] = []
    for part in parts:
        with part.open(newline="", encoding="utf-8") as file:
            new = list(csv.DictReader(file))
        first = min((int(row["step"]) for row in new), default=math.inf)
        rows = [row for row in rows if int(row["step"]) < first] + new
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
