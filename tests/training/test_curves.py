from __future__ import annotations

from pathlib import Path

from hlrp.training.curves import CurveLogger, curves_as_csv


def test_rows_survive_a_kill_in_the_middle_of_a_line_and_repeated_steps_count_once(tmp_path: Path) -> None:
    path = tmp_path / "run" / "curves.jsonl"
    for loss in (2.0, 1.0):  # the second process repeats step 9 after the first was killed
        log = CurveLogger(path)
        log.log_metrics({"train/loss": loss, "epoch": 0}, step=9)
        log.log_metrics({"val/error": 0.5}, step=9)
        with path.open("a") as file:
            file.write('{"train/loss": 0.2')
    CurveLogger(path).log_metrics({"train/loss": float("nan")}, step=4)
    assert curves_as_csv(path) == "step,train/loss,val/error\n4,nan,\n9,1.0,\n9,,0.5\n"


def test_rows_after_the_step_at_which_a_run_continues_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "curves.jsonl"
    CurveLogger(path).continue_at(3)
    assert not path.exists()  # the first attempt
    first = CurveLogger(path)
    for step in (1, 3, 5):
        first.log_metrics({"val/error": float(step)}, step=step)
    again = CurveLogger(path)
    again.continue_at(3)
    again.log_metrics({"val/error": 9.0}, step=7)
    assert curves_as_csv(path) == "step,val/error\n1,1.0\n7,9.0\n"


def test_a_run_without_metrics_has_an_empty_curve(tmp_path: Path) -> None:
    assert curves_as_csv(tmp_path / "curves.jsonl") == "step\n"
