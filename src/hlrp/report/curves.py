"""Read training curves from the log files of Lightning and of lerobot-train."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import NamedTuple

from lerobot.utils.utils import format_big_number


class Series(NamedTuple):
    """Values of one logged quantity over the optimizer steps."""

    steps: list[int]
    """Optimizer steps, in ascending order."""
    values: list[float]
    """Logged value at each step."""


def read_lightning_curves(path: Path | str) -> dict[str, Series]:
    """Read all curves of a `curves.csv` that `TrainingRun` wrote, by column name (`train/loss`, …).

    Empty cells are skipped, since Lightning writes training and validation values in separate rows. If a resumed run
    repeats a step, the later row counts.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ValueError: If the file has no column `step`.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if "step" not in (reader.fieldnames or []):
            raise ValueError(f"{path} has no column step; expected the curves.csv of a training run")
        curves: dict[str, dict[int, float]] = {}
        for row in reader:
            for name, cell in row.items():
                if name not in ("step", "epoch") and cell:
                    curves.setdefault(name, {})[int(row["step"])] = float(cell)
    return {name: _series(points) for name, points in curves.items()}


def read_lerobot_log(path: Path | str) -> dict[str, Series]:
    """Read all curves in the output of `lerobot-train`, by LeRobot's names (`loss`, `grdn`, …).

    LeRobot abbreviates steps: 1,200 and 1,400 both print as `1K`. An abbreviated step is therefore resolved to the next
    multiple of `log_freq` that prints alike; `log_freq` is printed at the start of the log. If a resumed run repeats a
    step, the later line counts.

    Args:
        path: Output of a `lerobot-train` run, including progress bars; outputs of resumed runs may be appended.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ValueError: If no line holds logged values, or an abbreviated step cannot be resolved.
    """
    curves: dict[str, dict[int, float]] = {}
    log_freq, step = None, 0
    # Universal newlines also split at the carriage returns of the progress bar.
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        # lerobot-train prints its settings at the start of every run, also of a resumed one, whose steps start lower.
        if match := _LOG_FREQ.search(line):
            log_freq, step = int(match[1]), 0
        elif match := _LOGGED_LINE.search(line):
            step = _exact_step(match[1], step, log_freq, path)
            for name, value in _LOGGED_VALUE.findall(match[2]):
                curves.setdefault(name, {})[step] = float(value)
    if not curves:
        raise ValueError(f"{path} has no line such as 'step:200 smpl:13K … loss:0.523'; expected lerobot-train's log")
    return {name: _series(points) for name, points in curves.items()}


_LOG_FREQ = re.compile(r"'log_freq': (\d+)")
_LOGGED_LINE = re.compile(r"\bstep:(\d+[KMBTQ]?) smpl:\S+ ep:\S+ (.*)")
_LOGGED_VALUE = re.compile(r"([^\s:]+):([-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|nan|inf))(?=\s|$)")


def _exact_step(text: str, previous: int, log_freq: int | None, path: Path | str) -> int:
    """Return the first multiple of `log_freq` after the step `previous` that LeRobot prints as `text`."""
    if text.isdigit():
        return int(text)
    if not log_freq:
        raise ValueError(f"{path} abbreviates a step as {text} and does not show log_freq; keep the log's first lines")
    scale = 1000 ** (1 + "KMBTQ".index(text[-1]))
    low, high = (round((int(text[:-1]) + side) * scale) for side in (-0.5, 0.5))
    first = max(previous // log_freq + 1, low // log_freq) * log_freq
    for step in range(first, high + 1, log_freq):
        if format_big_number(step) == text:
            return step
    raise ValueError(f"{path} shows step {text} after step {previous}, where no multiple of log_freq={log_freq} fits")


def _series(points: dict[int, float]) -> Series:
    steps = sorted(points)
    return Series(steps, [points[step] for step in steps])
