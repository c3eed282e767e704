"""Curves come back from real log formats, with exact steps."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from lerobot.utils.logging_utils import AverageMeter, MetricsTracker

from hlrp.report.curves import read_lerobot_log, read_lightning_curves

LIGHTNING = """\
epoch,step,train/copy_gain,train/loss,val/decoded_accuracy
0,9,-0.019008755683898926,1.0062501430511475,
0,19,-0.21725881099700928,0.8652117252349854,
0,19,,,0.25
0,29,0.1770995855331421,nan,
"""

LEROBOT = (
    "INFO 2026-11-21 07:44:26 ot_train.py:272 {'batch_size': 4,\n"
    " 'log_freq': 5,\n"
    "INFO 2026-11-21 07:44:27 ot_train.py:441 cfg.steps=20 (20)\n"
    "Training:   0%|          | 0/20 [00:00<?, ?step/s]"
    "\rTraining:  25%|██▌       | 5/20 [00:02<00:06,  2.43step/s]"
    "INFO 2026-11-21 07:44:29 ot_train.py:641 step:5 smpl:20 ep:0 epch:0.00 loss:65.000 grdn:357.232 "
    "lr:1.0e-05 updt_s:0.378 data_s:0.064 smp/s:9 l1_loss:0.989 kld_loss:6.401\n"
    "Training:  50%|█████     | 10/20 [00:04<00:03,  2.51step/s]"
    "INFO 2026-11-21 07:44:31 ot_train.py:641 step:10 smpl:40 ep:0 epch:0.00 loss:59.758 grdn:330.607 "
    "lr:1.0e-05 updt_s:0.356 data_s:0.041 smp/s:10 l1_loss:0.862 kld_loss:5.890\n"
    "INFO 2026-11-21 07:44:35 ot_train.py:687 Checkpoint policy after step 20\n"
)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def tracked_log(log_freq: int, last: int, *, first: int = 0) -> str:
    """Lines as LeRobot's own tracker prints them, the loss being the step."""
    meters = {"loss": AverageMeter("loss", ":.3f")}
    tracker = MetricsTracker(8, 1000, 10, meters, initial_step=first)
    lines = [f" 'log_freq': {log_freq},"]
    for step in range(first + 1, last + 1):
        tracker.step()
        tracker.loss = float(step)
        if step % log_freq == 0:
            lines.append(f"INFO 2026-11-21 07:44:29 ot_train.py:641 {tracker}")
            tracker.reset_averages()
    return "\n".join(lines) + "\n"


def test_lightning_rows_become_one_series_for_each_column(tmp_path: Path) -> None:
    curves = read_lightning_curves(written(tmp_path / "curves.csv", LIGHTNING))
    assert set(curves) == {"train/copy_gain", "train/loss", "val/decoded_accuracy"}
    assert curves["train/copy_gain"].steps == [9, 19, 29]
    assert curves["train/copy_gain"].values[1] == -0.21725881099700928
    assert curves["val/decoded_accuracy"] == ([19], [0.25])


def test_a_diverged_loss_stays_visible(tmp_path: Path) -> None:
    assert math.isnan(read_lightning_curves(written(tmp_path / "c.csv", LIGHTNING))["train/loss"].values[-1])


def test_the_later_row_of_a_repeated_step_counts(tmp_path: Path) -> None:
    path = written(tmp_path / "curves.csv", "epoch,step,train/loss\n0,9,3.0\n0,19,2.0\n0,9,1.5\n")
    assert read_lightning_curves(path)["train/loss"] == ([9, 19], [1.5, 2.0])


def test_a_file_without_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no column step"):
        read_lightning_curves(written(tmp_path / "other.csv", "a,b\n1,2\n"))


def test_lerobot_lines_are_read_between_progress_bars(tmp_path: Path) -> None:
    curves = read_lerobot_log(written(tmp_path / "train.log", LEROBOT))
    assert curves["loss"] == ([5, 10], [65.0, 59.758])
    assert curves["lr"].values == [1.0e-05, 1.0e-05]
    assert curves["kld_loss"].values == [6.401, 5.890]
    assert set(curves) == {
        "epch", "loss", "grdn", "lr", "updt_s", "data_s", "smp/s", "l1_loss", "kld_loss"
    }  # fmt: skip


@pytest.mark.parametrize(("log_freq", "last"), [(200, 5000), (50, 2600), (500, 12000), (7, 1600)])
def test_abbreviated_steps_come_back_exactly(tmp_path: Path, log_freq: int, last: int) -> None:
    loss = read_lerobot_log(written(tmp_path / "train.log", tracked_log(log_freq, last)))["loss"]
    assert loss.steps == list(range(log_freq, last + 1, log_freq))


def test_a_resumed_log_repeats_no_step(tmp_path: Path) -> None:
    log = tracked_log(200, 800) + tracked_log(200, 1000, first=400)
    assert read_lerobot_log(written(tmp_path / "train.log", log))["loss"].steps == [200, 400, 600, 800, 1000]


def test_an_abbreviated_step_without_its_frequency_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "train.log", "INFO step:1K smpl:8K ep:80 epch:8.00 loss:1.000\n")
    with pytest.raises(ValueError, match="log_freq"):
        read_lerobot_log(path)


def test_a_diverged_lerobot_loss_stays_visible(tmp_path: Path) -> None:
    path = written(tmp_path / "train.log", "INFO step:5 smpl:20 ep:0 epch:0.00 loss:nan grdn:inf\n")
    curves = read_lerobot_log(path)
    assert math.isnan(curves["loss"].values[0])
    assert math.isinf(curves["grdn"].values[0])


def test_a_log_without_figures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lerobot-train's log"):
        read_lerobot_log(written(tmp_path / "train.log", "error: no such dataset\n"))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        read_lerobot_log(tmp_path / "gone.log")
    with pytest.raises(FileNotFoundError, match="gone"):
        read_lightning_curves(tmp_path / "gone.csv")
