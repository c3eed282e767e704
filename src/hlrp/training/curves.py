"""Curves of a training run: a file of logged metrics that survives kills and resumptions, and its form as CSV."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger

from hlrp.runtime.json_lines import JsonLines

_CONTINUED_AT = "continued_at"
"""Key of the line that a resumed run adds: the optimizer step at which it continues, counted from 0."""


class RowLogger(Logger):
    """A logger of metrics alone."""

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run keeps its settings itself."""


class CurveLogger(RowLogger):
    """Append every row of metrics to the file `path` at once, as a line of JSON.

    Lightning's CSVLogger is not used: it keeps up to 100 rows in memory, and writes its file anew when a metric is
    logged for the first time, so that a killed run loses rows.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._lines = JsonLines(path)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append `metrics` as a row of the optimizer step `step`."""
        self._lines.path.parent.mkdir(parents=True, exist_ok=True)
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        self._lines.add({**values, "step": step})

    @rank_zero_only
    def continue_at(self, step: int) -> None:
        """Drop all rows of the optimizer step `step`, counted from 0, and later ones: the run does these steps again.

        The rows stay in the file, and `curves_as_csv` leaves them out: a file that is only appended to survives a kill.
        """
        if self._lines.path.is_file():
            self._lines.add({_CONTINUED_AT: step})


class ContinueCurves(pl.Callback):
    """Drop the rows of the curves that an earlier attempt logged after the state that is resumed."""

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for log in trainer.loggers:
            if isinstance(log, CurveLogger):
                log.continue_at(checkpoint["global_step"])


def curves_as_csv(path: Path) -> str:
    """Return the rows of a `CurveLogger` as CSV, in the order of the steps.

    A run that was killed after its last saved state repeats the steps since then when it is resumed: rows that an
    earlier attempt logged for these steps are left out. Of rows with the same step and the same metrics, the last one
    counts.
    """
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # half a line of a killed process
            continue
        if _CONTINUED_AT in row:
            rows = {key: kept for key, kept in rows.items() if kept["step"] < row[_CONTINUED_AT]}
            continue
        rows[(str(row["step"]), *sorted(row))] = row
    joined = io.StringIO()
    names = sorted({name for row in rows.values() for name in row} - {"step"})
    writer = csv.DictWriter(joined, fieldnames=["step", *names], lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows.values(), key=lambda row: row["step"]))
    return joined.getvalue()
