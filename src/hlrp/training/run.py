"""Folders of a training run: interruptible, resumable at any step, complete at the end or not there at all."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from pickle import UnpicklingError
from types import TracebackType

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger

from hlrp.runtime.event_log import log_event
from hlrp.runtime.processes import is_first_process
from hlrp.runtime.signals import Stopped
from hlrp.storage.artefacts import CURVES_FILE, LOGGER_DIRS, read_json, reading
from hlrp.storage.files import discard, refuse_existing, sole_writer, write_json
from hlrp.training.callbacks import pending_files
from hlrp.training.config import TrainerConfig
from hlrp.training.curves import curves_as_csv
from hlrp.training.loggers import CURVES_LOG, LoggedRun, end_loggers, run_loggers
from hlrp.training.loop import Schedule, TrainingLoop
from hlrp.training.settings import require_same
from hlrp.training.step_data import StepData

_SETTINGS_FILE = "run.json"
_STATE_FILE = "last.ckpt"
_SAVING_FILE = "saving"
"""Empty file in the scratch folder: the training is done, and `output_dir` is the model of this run if it exists."""
_SCRATCH_NAMES = frozenset(
    {
        _SETTINGS_FILE,
        f".{_SETTINGS_FILE}.partial",
        *(path.name for path in pending_files(Path(_STATE_FILE))),
        CURVES_LOG,
        *LOGGER_DIRS,
    }
)
"""All names that the scratch folder of a run may hold before the run has saved a state."""

logger = logging.getLogger(__name__)


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
        self._state = self.scratch / _STATE_FILE
        self._settings_file = self.scratch / _SETTINGS_FILE
        self._settings = dict(settings or {})
        self._data: dict[str, object] = {}
        self._resume = resume
        self._resume_command = resume_command
        self.is_main = is_first_process()
        """Whether this is the first of all processes, the only one that evaluates, saves and prints."""
        self._locks = ExitStack()
        if self.is_main:
            self._lock_folders()
        else:  # no check of the folders: the first process does this, and may already be writing
            self._resume = resume and self._state.is_file()
            logging.getLogger("hlrp").setLevel(logging.WARNING)

    def __enter__(self) -> TrainingRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_main and error is not None:
            if not self._state.is_file():  # nothing to resume: leave no folder that a new run would have to explain
                shutil.rmtree(self.scratch, ignore_errors=True)
            elif self._is_saved():
                logger.warning(f"{self.output_dir} is complete")
            elif isinstance(error, (KeyboardInterrupt, Stopped)):
                logger.warning(f"the state of the run is saved; continue it with\n    {self._resume_command}")
        self._locks.close()

    def _lock_folders(self) -> None:
        with ExitStack() as locks:
            lock_is_effective = locks.enter_context(sole_writer(self.output_dir))
            if self._is_saved() and lock_is_effective:  # the last run was killed after it had saved the model
                self._clear()
            refuse_existing(self.output_dir)
            self._find_state(lock_is_effective)
            self._locks = locks.pop_all()  # keep the lock until `__exit__`; an error above has released it

    def _find_state(self, lock_is_effective: bool) -> None:
        """Check the state to resume, or remove the scratch folder of a run that was killed before it saved a state.

        Without an effective lock, another run may still write to the scratch folder, so that it is not removed.
        """
        if self._state.is_file():
            if not self._resume:
                raise FileExistsError(
                    f"{self.scratch} holds an unfinished run; continue it with --resume=true or remove the folder"
                )
            _require_readable(self._state)
            if self._settings:
                self._require_unchanged("settings", self._settings, prefix="--")
        elif self.scratch.exists():
            if {path.name for path in self.scratch.iterdir()} - _SCRATCH_NAMES:
                # Files that no run has written: removing the folder could destroy a user's data.
                raise FileExistsError(f"{self.scratch} is in the way and no training run; remove or rename it")
            if not lock_is_effective:
                raise FileExistsError(
                    f"{self.scratch} is of a run that ended before it saved a state, or still runs; remove it if none "
                    "runs"
                )
            logger.info(f"the last run of {self.output_dir} ended before it saved a state: starting from the beginning")
            shutil.rmtree(self.scratch)
            self._resume = False
        elif self._resume:
            raise FileNotFoundError(f"nothing to resume: {self._state} does not exist; run without --resume")

    def require_same_data(self, facts: Mapping[str, object]) -> None:
        """Record facts about the training data; in a resumed run, compare them with those of the interrupted run.

        Args:
            facts: Plain values by name, such as from `hlrp.data.run_facts`.

        Raises:
            ValueError: If the interrupted run was trained on other data.
        """
        self._data = dict(facts)
        if self.is_main and self._resume:
            self._require_unchanged("data", self._data, prefix="")

    def _require_unchanged(self, what: str, now: Mapping[str, object], *, prefix: str) -> None:
        """Raise unless the part `what` of the settings file, "settings" or "data", equals `now`."""
        start_again = f"remove {self.scratch} and run without --resume"
        if not self._settings_file.is_file():
            raise ValueError(
                f"{self._settings_file} is missing, so the settings of the interrupted run cannot be compared with the "
                f"present ones; {start_again}"
            )
        values = read_json(self._settings_file, remedy=start_again)
        with reading(self._settings_file, remedy=start_again):
            before = dict(values[what])
        remedy = f"resume with what it was begun with, or {start_again}"
        require_same(before, now, prefix=prefix, remedy=remedy)

    def _require_loadable(self, config: TrainerConfig) -> None:
        """Raise if fsdp is to load a state of another strategy, which has the optimizer's states in another order."""
        if config.strategy != "fsdp" or not self._settings_file.is_file():
            return
        values = read_json(self._settings_file)
        with reading(self._settings_file):
            before = dict(values).get("strategy", "fsdp")  # runs of earlier versions do not say it
        if before != "fsdp":
            raise ValueError(
                f"the run to resume was trained with trainer.strategy={before}, whose state fsdp cannot load; resume "
                f"it with trainer.strategy={before}"
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
            ValueError: If a quality gate fails, `device` does not support the settings of `trainer`, or fsdp is to
                resume a run of another strategy.
            Stopped: If a signal ended the training; the state is saved.
        """
        config = trainer or TrainerConfig()
        config.require_device(device)
        config.require_reachable_gates(steps)
        if self.is_main:
            if self._resume:
                self._require_loadable(config)
            facts = {"settings": self._settings, "data": self._data, "strategy": config.strategy}
            write_json(self._settings_file, facts)
        schedule = Schedule(steps=steps, save_every=save_every, validate_every=validate_every, log_every=log_every)
        loggers = self._loggers(config, steps)
        loop = TrainingLoop(module, config, schedule, device=device, state=self._state, loggers=loggers)
        metrics = loop.run(data, resume=self._resume)
        self._end_processes(loggers)
        if loop.signum is not None and self.is_main:  # the signal came after the last step, whose state is saved
            raise Stopped(loop.signum)
        return metrics

    def _end_processes(self, loggers: Sequence[Logger]) -> None:
        """End what would keep the processes of the run together: wandb's upload, and the process group."""
        if self.is_main:
            end_loggers(loggers)
        if torch.distributed.is_initialized():  # only the first process goes on, and must not wait for the others
            torch.distributed.destroy_process_group()

    def _loggers(self, config: TrainerConfig, steps: int) -> list[Logger]:
        run = LoggedRun(
            name=self.output_dir.name,
            folder=self.scratch,
            settings=self._settings,
            steps=steps,
            is_resumed=self._resume,
        )
        return run_loggers(config.loggers, run)

    def finish(self, save: Callable[[Mapping[str, str]], object]) -> None:
        """Write the result of the training to `output_dir`, and remove the scratch folder of the run.

        Args:
            save: Function that writes `output_dir`, completely or not at all. Its argument is the content of a further
                text file by name: curves.csv.
        """
        (self.scratch / _SAVING_FILE).touch()
        save({CURVES_FILE: curves_as_csv(self.scratch / CURVES_LOG)})
        log_event("saved", path=str(self.output_dir))
        self._clear()

    def _is_saved(self) -> bool:
        """Whether a run was interrupted after it had written `output_dir`, before it removed its scratch folder."""
        return (self.scratch / _SAVING_FILE).is_file() and self.output_dir.is_dir() and any(self.output_dir.iterdir())

    def _clear(self) -> None:
        """Move the files of loggers to `output_dir`, which is complete, and remove the scratch folder."""
        for name in LOGGER_DIRS:
            if (self.scratch / name).exists():
                shutil.move(self.scratch / name, self.output_dir / name)
        discard(self.scratch, of=self.output_dir)


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
