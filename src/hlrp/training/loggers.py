"""Loggers of a training run: its curves, the events of the command, and services that the options name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from hlrp.runtime.event_log import log_event
from hlrp.runtime.progress import Pace
from hlrp.training.config import LoggerName
from hlrp.training.curves import CurveLogger, RowLogger

CURVES_LOG = "curves.jsonl"
"""File of the `CurveLogger` in the folder of an unfinished run."""
_PROJECT = "hlrp"
"""Project of the runs on services that group runs."""


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """Facts about a run that loggers need."""

    name: str
    folder: Path
    """Folder of the files of loggers."""
    settings: Mapping[str, object]
    """Options by name, which services show beside the curves."""
    steps: int
    is_resumed: bool


class EventLogger(RowLogger):
    """Adds every row of metrics to the command's log of events, as progress of the training."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps
        self._pace: Pace | None = None

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add `metrics` of the optimizer step `step`, counted from 0."""
        done = 0 if step is None else step + 1
        if self._pace is None:  # the pace is measured from the first row on, without what the first steps prepare
            self._pace = Pace("training", self._steps, unit="step", done=done)
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        log_event("progress", **self._pace.facts(done), metrics=values)


class TrackioLogger(RowLogger):
    """Logs to Trackio, for which Lightning has no logger. A resumed run of the same name is continued there.

    Trackio keeps its runs in one folder of the user, TRACKIO_DIR, where its dashboard looks for them.
    """

    def __init__(self, run: LoggedRun) -> None:
        super().__init__()
        self._run = run
        self._is_started = False

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log `metrics` of the optimizer step `step`; the first row starts the run of Trackio."""
        import trackio  # optional: checked with the options

        if not self._is_started:
            self._is_started = True
            trackio.init(
                project=_PROJECT,
                name=self._run.name,
                config=dict(self._run.settings),
                resume="allow" if self._run.is_resumed else "never",
                embed=False,
            )
        trackio.log({name: float(value) for name, value in metrics.items() if name != "epoch"}, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is still queued."""
        if self._is_started:
            import trackio

            trackio.finish()
            self._is_started = False


def run_loggers(names: Sequence[LoggerName], run: LoggedRun) -> list[Logger]:
    """The loggers of a run: those that every run has, and those that the options name."""
    loggers: list[Logger] = [CurveLogger(run.folder / CURVES_LOG), EventLogger(run.steps)]
    if "tensorboard" in names:
        loggers.append(TensorBoardLogger(run.folder, name="tensorboard"))
    if "wandb" in names:
        run.folder.mkdir(parents=True, exist_ok=True)  # wandb uses another folder if this one does not exist
        loggers.append(WandbLogger(project=_PROJECT, name=run.name, save_dir=run.folder))
    if "trackio" in names:
        loggers.append(TrackioLogger(run))
    for log in loggers:
        log.log_hyperparams(dict(run.settings))
    return loggers


def end_loggers(loggers: Sequence[Logger]) -> None:
    """End what would go on in other processes: wandb's upload."""
    for log in loggers:
        if isinstance(log, WandbLogger):
            log.experiment.finish()
