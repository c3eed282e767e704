"""The terminal's summary."""

from __future__ import annotations

from typing import Any

import pytest

from hlrp.report.durations import duration
from hlrp.report.terminal import summary


def test_the_summary_says_success_quality_and_time(report: dict[str, Any]) -> None:
    text = summary(report)
    expected = ["90%  (60% … 98%)", "75%  (53% … 89%)", "0.312", "weak", "0.612", "25 min 40 s", "3.4 GiB"]
    assert [figure for figure in expected if figure not in text] == []
    assert text.count("\n\n") == 3


def test_a_task_a_policy_did_not_run_has_a_dash(report: dict[str, Any]) -> None:
    row = next(line for line in summary(report).splitlines() if line.startswith("door-open-v3"))
    assert row.endswith("–")


def test_the_summary_fits_a_terminal(report: dict[str, Any]) -> None:
    assert max(len(line) for line in summary(report).splitlines()) <= 80


def test_an_incomplete_report_is_refused(report: dict[str, Any]) -> None:
    del report["peak_memory_gib"]
    with pytest.raises(ValueError, match="lacks peak_memory_gib"):
        summary(report)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"), (8.42, "8.4 s"), (9.96, "10 s"), (59.9, "60 s"), (59.96, "1 min 00 s"),
        (185.2, "3 min 05 s"), (3599.7, "1 h 00 min"), (7800.0, "2 h 10 min"),
    ],
)  # fmt: skip
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
