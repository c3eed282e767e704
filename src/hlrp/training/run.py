"""Training loop of stages 1 and 2 on Lightning: interruptible, resumable at any step, on one or several processes.

The batch of an optimizer step is divided into world_size * accumulate equal parts, one for each process and each
backward pass. Lightning divides the loss by `accumulate`, and DDP and FSDP average gradients over processes. If the
loss is a mean over rows, its gradient is therefore the same however the batch is divided.
"""

from __future__ import annotations

import copy
import csv
import logging
import math
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from types import TracebackType
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.utilities.compile import to_uncompiled
from torch.utils.data import DataLoader, Dataset, Sampler

from hlrp.runtime.signals import Stopped, StopRequest
from hlrp.storage.artefacts import read_json, reading
from hlrp.storage.files import new_file, refuse_existing, sole_writer, write_json
from hlrp.training.callbacks import (
    AveragedWeights,
    DrawsByStep,
    QualityGates,
    SaveState,
    StateFile,
    ValidateAfterLastStep,
)
from hlrp.training.config import TrainerConfig
from hlrp.training.settings import require_same
from hlrp.training.sharding import gather_weights, sharding_strategy
from hlrp.training.step_batches import StepBatches

CURVES_FILE = "curves.csv"
LOGGER_DIRS = ("tensorboard", "wandb")
_SETTINGS_FILE = "run.json"
_LOG_DIR = "log"
_SCRATCH_NAMES = frozenset({_SETTINGS_FILE, ".last.ckpt.partial", f".{_SETTINGS_FILE}.partial", _LOG_DIR, *LOGGER_DIRS})
"""All names that the scratch folder of a run may hold before the run has saved a state."""

logger = logging.getLogger(__name__)


class _Share(NamedTuple):
    """Arguments of `StepBatches.part`."""

    step: int
    index: int
    parts: int


class _SharesFrom(Sampler[_Share]):
    """Sampler of the batch parts of this process, from the trainer's current step on.

    The sampler has no length, so that Lightning never starts a second epoch. In a resumed run, Lightning iterates after
    it has loaded the state, so that sampling starts at the step of the state.
    """

    def __init__(self, trainer: pl.Trainer, steps: int) -> None:
        self._trainer, self._steps = trainer, steps

    def __iter__(self) -> Iterator[_Share]:
        rank, processes = self._trainer.global_rank, self._trainer.world_size
        accumulate = self._trainer.accumulate_grad_batches
        for step in range(self._trainer.global_step, self._steps):
            for micro in range(accumulate):
                yield _Share(step, micro * processes + rank, processes * accumulate)


class _Shares(Dataset[Any]):
    """Adapter of `StepBatches` to a PyTorch dataset whose keys are `_Share`."""

    def __init__(self, batches: StepBatches) -> None:
        self._batches = batches

    def __getitem__(self, share: _Share) -> Any:
        return self._batches.part(*share)


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
            _Shares(self.train),
            batch_size=None,
            sampler=_SharesFrom(trainer, len(self.train)),
            num_workers=self.num_workers,
            collate_fn=_as_it_is,
            worker_init_fn=_leave_signals_to_the_trainer,
        )

    def val_loader(self) -> DataLoader[Any] | None:
        """Loader of the validation batches, in order; None without validation data."""
        return None if self.val is None else DataLoader(self.val, batch_size=None, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    return batch


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Let a loader's worker process ignore SIGINT and SIGTERM.

    Ctrl-C and clusters signal all processes of a job. A worker that ends at once would make the trainer fail before it
    has saved its state. Workers end with their training process anyway.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)


class TrainingRun:
    """A training run and its folders, as a context manager.

    Until the run is finished, its state and logs are in the folder `<output_dir>.training`, and `output_dir` does not
    exist. Inside the `with` block no other run can write to these folders. If the block ends with an error, the last
    saved state is kept, to resume the run; if no state was saved, nothing is left behind.

    With several processes, all of them train, but only the first one locks the folders, logs and writes. Code after
    `fit` that evaluates or saves must check `is_main`.
    """

    def __init__(
        self,
        output_dir: Path | str,
        *,
        resume: bool,
        settings: Mapping[str, object] | None = None,
        resume_command: str = "the same call with resume=True",
    ) -> None:
        """Lock the folders of the run, and find the state to resume.

        Args:
            output_dir: Folder that the caller writes when the training is finished.
            resume: Continue an interrupted run; if it had not saved a state yet, start it again.
            settings: Plain values by name that must be the same in a resumed run; see `lasting_settings`.
            resume_command: Command that continues this run, for the message after an interruption.

        Raises:
            FileExistsError: If `output_dir` exists, another process trains there, or there is an unfinished run and
                `resume` is false.
            FileNotFoundError: If `resume` is true and there is nothing to resume.
            ValueError: If the interrupted run has other settings, or its state is damaged.
        """
        self.output_dir = Path(output_dir)
        self.scratch = self.output_dir.with_name(f"{self.output_dir.name}.training")
        self._last = self.scratch / "last.ckpt"
        self._begun_with = self.scratch / _SETTINGS_FILE
        self._settings = dict(settings or {})
        self._data: dict[str, object] = {}
        self._resume = resume
        self._resume_command = resume_command
        self.is_main = _is_main_process()
        """Whether this is the first of all processes, the only one that evaluates, saves and prints."""
        self._claim = ExitStack()
        if not self.is_main:  # no check of the folders: the first process does this, and may already be writing
            self._resume = resume and self._last.is_file()
            logging.getLogger("hlrp").setLevel(logging.WARNING)
            return
        with ExitStack() as claim:
            refuse_existing(self.output_dir)
            is_certain = claim.enter_context(sole_writer(self.output_dir))
            refuse_existing(self.output_dir)  # again: another run may have finished before the lock was taken
            self._look_at_what_is_there(is_certain)
            self._claim = claim.pop_all()

    def __enter__(self) -> TrainingRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_main and error is not None:
            if not self._last.is_file():
                shutil.rmtree(self.scratch, ignore_errors=True)
            elif isinstance(error, (KeyboardInterrupt, Stopped)):
                logger.warning(f"the state of the run is saved; continue it with\n    {self._resume_command}")
        self._claim.close()

    def _look_at_what_is_there(self, is_certain: bool) -> None:
        """Check the state to resume, or remove the scratch folder of a run that was killed before it saved a state.

        `is_certain` says whether a file lock confirms that no other run writes to the folder.
        """
        if self._last.is_file():
            if not self._resume:
                raise FileExistsError(
                    f"{self.scratch} holds an unfinished run; continue it with --resume=true or remove the folder"
                )
            _require_readable(self._last)
            if self._settings:
                self._require_begun_with("settings", self._settings, prefix="--")
        elif self.scratch.exists():
            if {path.name for path in self.scratch.iterdir()} - _SCRATCH_NAMES:
                # Files that no run has written: removing the folder could destroy a user's data.
                raise FileExistsError(f"{self.scratch} is in the way and no training run; remove or rename it")
            if not is_certain:
                raise FileExistsError(
                    f"{self.scratch} is of a run that ended before it saved a state, or still runs; remove it if none "
                    "runs"
                )
            logger.info(f"the last run of {self.output_dir} ended before it saved a state: starting from the beginning")
            shutil.rmtree(self.scratch)
            self._resume = False
        elif self._resume:
            raise FileNotFoundError(f"nothing to resume: {self._last} does not exist; run without --resume")

    def require_same_data(self, facts: Mapping[str, object]) -> None:
        """Record facts about the training data; in a resumed run, compare them with those of the interrupted run.

        Args:
            facts: Plain values by name, such as from `hlrp.data.run_facts`.

        Raises:
            ValueError: If the interrupted run was trained on other data.
        """
        self._data = dict(facts)
        if self.is_main and self._resume:
            self._require_begun_with("data", self._data, prefix="")

    def _require_begun_with(self, what: str, now: Mapping[str, object], *, prefix: str) -> None:
        remedy = f"resume with what it was begun with, or remove {self.scratch} and run without --resume"
        if not self._begun_with.is_file():
            raise ValueError(
                f"{self._begun_with} is missing, so it cannot be told whether the interrupted run had these settings; "
                f"remove {self.scratch} and run without --resume"
            )
        start_again = f"remove {self.scratch} and run without --resume"
        values = read_json(self._begun_with, remedy=start_again)
        with reading(self._begun_with, remedy=start_again):
            before = dict(values[what])
        require_same(before, now, prefix=prefix, remedy=remedy)

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
        """Train `module` until it has done `steps` optimizer steps, including those before an interruption.

        Afterwards `module` holds the trained weights, or their moving average if `ema_decay` is set. With fsdp, this is
        true only on the first process.

        Args:
            module: Lightning module to train, in place.
            data: Training and validation batches.
            steps: Number of optimizer steps of the whole run.
            save_every: Steps between two saved states.
            validate_every: Steps between two validations; None for no validation.
            device: Device of the training, such as "cpu" or "cuda".
            trainer: Settings of the trainer; default: one process, float32.
            log_every: Steps between two logged values of training metrics.

        Returns:
            Last logged value of every metric, by name.

        Raises:
            ValueError: If a quality gate fails, or `device` does not support the settings of `trainer`.
            Stopped: If a signal ended the training; the state is saved.
        """
        config = trainer or TrainerConfig()
        accelerator = {"cuda": "gpu", "cpu": "cpu", "mps": "mps"}[torch.device(device).type]
        config.require_device(device)
        late = [gate for gate in config.gates if gate.at_step > steps]
        if late:
            raise ValueError(f"the gate on {late[0].metric} is at step {late[0].at_step}, after the last, {steps}")

        if self.is_main and not self._resume:
            write_json(self._begun_with, {"settings": self._settings, "data": self._data})
        request = StopRequest()
        sharded = config.strategy == "fsdp"
        trained = copy.deepcopy(module) if sharded else module
        average = AveragedWeights(config.ema_decay) if config.ema_decay else None
        gates = QualityGates(config.gates)
        save = SaveState(
            self._last,
            every=save_every,
            also_at={steps, *(gate.at_step for gate in config.gates)},
            also_every=validate_every,
            accumulate=config.accumulate,
            steps=steps,
            request=request,
        )
        loop = pl.Trainer(
            max_steps=steps,
            max_epochs=-1,  # only `max_steps` ends the training
            accelerator=accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=_strategy(config, trained),
            use_distributed_sampler=False,  # `_SharesFrom` divides the batch; Lightning must not divide it again
            precision=config.precision,
            plugins=StateFile(),
            default_root_dir=self.scratch,  # Lightning resumes preempted Slurm jobs from here: only this run's states
            accumulate_grad_batches=config.accumulate,
            logger=self._loggers(config),
            callbacks=[
                DrawsByStep(config.accumulate),
                *([average] if average else []),
                gates,
                *([ValidateAfterLastStep(steps)] if validate_every else []),
                save,  # last, so that it saves the state after all other callbacks have changed it
                TQDMProgressBar(refresh_rate=10),
            ],
            val_check_interval=validate_every and validate_every * config.accumulate,  # Lightning counts batch parts
            limit_val_batches=None if validate_every else 0,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_checkpointing=False,
            gradient_clip_val=config.gradient_clip or None,
            log_every_n_steps=log_every,
        )
        with request.listening():
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
            if not loop.callback_metrics:  # the run was resumed after its last step, so that nothing was logged
                if validate_every:
                    loop.validate(trained, data.val_loader(), verbose=False)
                gates.judge_resumed(loop)
            if sharded:
                gather_weights(trained, into=module)
        for log in loop.loggers:
            if isinstance(log, WandbLogger) and self.is_main:
                log.experiment.finish()
        if torch.distributed.is_initialized():  # only the first process goes on, and must not wait for the others
            torch.distributed.destroy_process_group()
        if request.signum is not None and self.is_main:  # the signal came after the last step, whose state is saved
            raise Stopped(request.signum)
        return {name: float(value) for name, value in loop.callback_metrics.items()}

    def _loggers(self, config: TrainerConfig) -> list[Logger]:
        loggers: list[Logger] = [CSVLogger(self.scratch, name=_LOG_DIR)]
        if "tensorboard" in config.loggers:
            loggers.append(TensorBoardLogger(self.scratch, name="tensorboard"))
        if "wandb" in config.loggers:
            self.scratch.mkdir(parents=True, exist_ok=True)  # wandb uses another folder if this one does not exist
            loggers.append(WandbLogger(project="hlrp", name=self.output_dir.name, save_dir=self.scratch))
        return loggers

    def finish(self) -> None:
        """Move curves.csv and the files of loggers to `output_dir`, and remove the scratch folder of the run.

        Call this when `output_dir` is complete.
        """
        parts = (self.scratch / _LOG_DIR).glob("version_*/metrics.csv")
        _join_curves(
            sorted(parts, key=lambda path: int(path.parent.name.removeprefix("version_"))),
            self.output_dir / CURVES_FILE,
        )
        for name in LOGGER_DIRS:
            if (self.scratch / name).exists():
                shutil.move(self.scratch / name, self.output_dir / name)
        shutil.rmtree(self.scratch)


def _require_readable(state: Path) -> None:
    """Raise unless the state file is complete: torch finds the table of contents at its end.

    Raises:
        ValueError: If the file is damaged or cut short.
    """
    try:
        torch.load(state, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise ValueError(
            f"{state} is damaged and cannot be resumed ({str(error).splitlines()[0]}); remove {state.parent} and start "
            "again without --resume"
        ) from error


def _is_main_process() -> bool:
    """Whether this is the first process, by the environment variables of launchers (`torch.distributed` is not
    initialized yet)."""
    return rank_zero_only.rank == 0 and ("RANK" in os.environ or os.environ.get("NODE_RANK", "0") == "0")


def _strategy(config: TrainerConfig, module: pl.LightningModule) -> Strategy | Literal["auto"]:
    if config.strategy == "fsdp":
        return sharding_strategy(module, world_size=config.world_size)
    return DDPStrategy() if config.strategy == "ddp" else "auto"


def _join_curves(parts: Sequence[Path], target: Path) -> None:
    """Join the curves of a run and its resumptions in one CSV file; of repeated steps, the last resumption counts."""
    rows: list[dict[str, str]] = []
    for part in parts:
        with part.open(newline="", encoding="utf-8") as file:
            # A run that is killed may leave half a line at the end.
            new = [row for row in csv.DictReader(file) if None not in row.values()]
        first = min((int(row["step"]) for row in new), default=math.inf)
        rows = [row for row in rows if int(row["step"]) < first] + new
    with new_file(target) as scratch, scratch.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
