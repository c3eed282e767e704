"""One Lightning run: interruptible, resumable to the step, on one process or many, with its curve kept as CSV.

The batch of an optimizer step is divided into world_size * accumulate equal parts, one for each process and each
backward pass of the step. A loss that is the mean over its rows therefore has the same gradient however the batch is
divided: the mean over equal parts (Lightning divides by `accumulate`, DDP and FSDP average over processes) is the mean
over the batch.
"""

from __future__ import annotations

import copy
import csv
import logging
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.plugins import HalfPrecision
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.utilities.compile import to_uncompiled
from torch.utils.data import DataLoader, Dataset, Sampler

from hlrp.files import refuse_existing
from hlrp.sharding import gather_weights, sharding_strategy
from hlrp.step_batches import StepBatches
from hlrp.training_callbacks import AveragedWeights, DrawsByStep, QualityGates, SaveState
from hlrp.training_config import TrainerConfig

CURVES_FILE = "curves.csv"
_LOG_DIR = "log"


class _Share(NamedTuple):
    """Arguments of `StepBatches.part`."""

    step: int
    index: int
    parts: int


class _SharesFrom(Sampler[_Share]):
    """What this process reads, from the trainer's current step on; without a length, so that Lightning never starts a
    second epoch. Iterating begins after a state was loaded, and so at its step."""

    def __init__(self, trainer: pl.Trainer, steps: int) -> None:
        self._trainer, self._steps = trainer, steps

    def __iter__(self) -> Iterator[_Share]:
        rank, processes = self._trainer.global_rank, self._trainer.world_size
        accumulate = self._trainer.accumulate_grad_batches
        for step in range(self._trainer.global_step, self._steps):
            for micro in range(accumulate):
                yield _Share(step, micro * processes + rank, processes * accumulate)


class _Shares(Dataset[Any]):
    """`StepBatches` as a dataset whose items are shares."""

    def __init__(self, batches: StepBatches) -> None:
        self._batches = batches

    def __getitem__(self, share: _Share) -> Any:
        return self._batches.part(*share)


@dataclass(frozen=True)
class StepData:
    """Training batches that are a function of the step number, so that resuming repeats nothing and skips nothing."""

    train: StepBatches
    """The batch of every step."""
    val: Dataset[Any] | None
    """Items are whole batches, or None. Every process validates on all of them, and so comes to the same figures."""
    num_workers: int = field(kw_only=True)
    """Worker processes that prepare the batches of each training process."""

    def train_loader(self, trainer: pl.Trainer) -> DataLoader[Any]:
        """This process's parts of the training batches, from the trainer's current step on."""
        return DataLoader(
            _Shares(self.train),
            batch_size=None,
            sampler=_SharesFrom(trainer, len(self.train)),
            num_workers=self.num_workers,
            collate_fn=_as_it_is,
        )

    def val_loader(self) -> DataLoader[Any] | None:
        """Validation batches in order."""
        return None if self.val is None else DataLoader(self.val, batch_size=None, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    return batch


class TrainingRun:
    """Where a run keeps its state until `output_dir` can be written complete.

    Everything unfinished lies in the sibling folder `<output_dir>.training`. With several processes all of them train,
    and the first alone claims the folders, logs and writes; whoever goes on after `fit` asks `is_main`.
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
        self._resume = resume
        self.is_main = _is_main_process()
        """Whether this is the first of all processes: the one that evaluates, saves and prints."""
        if self.is_main:
            self._claim()
        else:  # the first process may have begun to write; and says all there is to say
            logging.getLogger("hlrp").setLevel(logging.WARNING)

    def _claim(self) -> None:
        refuse_existing(self.output_dir)
        if self.scratch.exists() and not self._last.is_file():
            error = FileNotFoundError if self._resume else FileExistsError
            raise error(
                f"{self.scratch} is of a run that stopped before it saved a state, or still runs; "
                f"remove {self.scratch} and run without --resume"
            )
        if self._resume and not self._last.is_file():
            raise FileNotFoundError(f"nothing to resume: {self._last} does not exist; run without --resume")
        if not self._resume and self.scratch.exists():
            raise FileExistsError(
                f"{self.scratch} holds an unfinished run; continue it with --resume=true or remove the folder"
            )

    def fit(
        self,
        module: pl.LightningModule,
        data: StepData,
        *,
        steps: int,
        save_every: int,
        validate_every: int | None = None,
        device: str,
        trainer: TrainerConfig | None = None,
        log_every: int = 10,
    ) -> dict[str, float]:
        """Train for `steps` optimizer steps in all, counting those before a resume; returns the last logged figures.

        Afterwards `module` holds the trained weights, averaged where `ema_decay` says so; under fsdp only that of the
        first process does.

        Raises:
            ValueError: If a quality gate fails, or the device cannot do what `trainer` asks.
        """
        config = trainer or TrainerConfig()
        accelerator = {"cuda": "gpu", "cpu": "cpu", "mps": "mps"}[torch.device(device).type]
        if accelerator == "cpu" and config.precision == "16-mixed":
            raise ValueError("precision 16-mixed needs a GPU; use bf16-mixed or 32-true on a CPU")
        late = [gate for gate in config.gates if gate.at_step > steps]
        if late:
            raise ValueError(f"the gate on {late[0].metric} is at step {late[0].at_step}, after the last, {steps}")

        sharded = config.strategy == "fsdp"
        trained = copy.deepcopy(module) if sharded else module
        average = AveragedWeights(config.ema_decay) if config.ema_decay else None
        save = SaveState(
            self._last,
            every=save_every,
            also_at={steps, *(gate.at_step for gate in config.gates)},
            accumulate=config.accumulate,
        )
        loop = pl.Trainer(
            max_steps=steps,
            max_epochs=-1,
            accelerator=accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=_strategy(config, trained),
            use_distributed_sampler=False,
            precision=None if config.precision == "bf16-true" else config.precision,
            plugins=HalfWeights("bf16-true") if config.precision == "bf16-true" else None,
            accumulate_grad_batches=config.accumulate,
            logger=self._loggers(config),
            callbacks=[
                DrawsByStep(config.accumulate),
                *([average] if average else []),
                QualityGates(config.gates),
                save,  # after all that changes the state
                TQDMProgressBar(refresh_rate=10),
            ],
            val_check_interval=validate_every and validate_every * config.accumulate,  # which Lightning counts in parts
            limit_val_batches=None if validate_every else 0,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_checkpointing=False,
            gradient_clip_val=config.gradient_clip or None,
            log_every_n_steps=log_every,
        )
        loop.fit(
            torch.compile(trained) if config.compile else trained,  # pyright: ignore[reportArgumentType]
            data.train_loader(loop),
            data.val_loader(),
            ckpt_path=self._last if self._resume else None,
            weights_only=True,
        )
        if loop.global_step < steps:
            raise KeyboardInterrupt(f"stopped at step {loop.global_step} of {steps}")
        if config.compile:
            to_uncompiled(trained)
        if average:
            average.apply_to(trained)
        if validate_every and not loop.callback_metrics:  # resumed when nothing was left to train
            loop.validate(trained, data.val_loader(), verbose=False)
        if sharded:
            gather_weights(trained, into=module)
        for logger in loop.loggers:
            if isinstance(logger, WandbLogger) and self.is_main:
                logger.experiment.finish()
        if torch.distributed.is_initialized():  # what follows is the first process's own, and never waits for another
            torch.distributed.destroy_process_group()
        return {name: float(value) for name, value in loop.callback_metrics.items()}

    def _loggers(self, config: TrainerConfig) -> list[Logger]:
        loggers: list[Logger] = [CSVLogger(self.scratch, name=_LOG_DIR)]
        if "tensorboard" in config.loggers:
            loggers.append(TensorBoardLogger(self.scratch, name="tensorboard"))
        if "wandb" in config.loggers:
            self.scratch.mkdir(parents=True, exist_ok=True)  # wandb would fall back to another folder
            loggers.append(WandbLogger(project="hlrp", name=self.output_dir.name, save_dir=self.scratch))
        return loggers

    def finish(self) -> None:
        """Keep the curve and what loggers wrote, drop the rest; call when `output_dir` is complete."""
        parts = (self.scratch / _LOG_DIR).glob("version_*/metrics.csv")
        _join_curves(
            sorted(parts, key=lambda path: int(path.parent.name.removeprefix("version_"))),
            self.output_dir / CURVES_FILE,
        )
        for name in ("tensorboard", "wandb"):
            if (self.scratch / name).exists():
                shutil.move(self.scratch / name, self.output_dir / name)
        shutil.rmtree(self.scratch)


def _is_main_process() -> bool:
    """Known before processes have met: launchers say it in the environment."""
    return rank_zero_only.rank == 0 and ("RANK" in os.environ or os.environ.get("NODE_RANK", "0") == "0")


def _strategy(config: TrainerConfig, module: pl.LightningModule) -> Strategy | Literal["auto"]:
    if config.strategy == "fsdp":
        return sharding_strategy(module, world_size=config.world_size)
    return DDPStrategy() if config.strategy == "ddp" else "auto"


class HalfWeights(HalfPrecision):
    """Lightning's, for batches that are frozen dataclasses too."""

    def convert_input(self, data: Any) -> Any:
        """Copy with floating-point tensors in the weights' type."""
        if is_dataclass(data) and not isinstance(data, type):
            return replace(data, **{f.name: super().convert_input(getattr(data, f.name)) for f in fields(data)})
        return super().convert_input(data)


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
