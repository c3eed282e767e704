"""One name and one threshold for every figure, wherever it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from hlrp.measure.code_accuracy import CodeAccuracy
from hlrp.measure.language import LanguageMetrics
from hlrp.report.metrics import (
    FOUNDATION_METRICS,
    LANGUAGE_METRICS,
    LAQ_METRICS,
    Metric,
    collapsed_below,
    good_perplexity,
)
from unmeasured_quality import UNMEASURED

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("metrics", [LAQ_METRICS, FOUNDATION_METRICS])
def test_the_readme_has_every_judged_figure_under_its_name_with_its_threshold(metrics: dict[str, Metric]) -> None:
    rows = [line.strip("| ").split(" | ") for line in README.read_text().splitlines() if line.startswith("| ")]
    expected = [[metric.name, metric.meaning, metric.wanted] for metric in metrics.values() if metric.wanted]
    assert [row for row in expected if row not in rows] == []
    written = {row[0]: row for row in rows if row[0] in {metric.name for metric in metrics.values()}}
    assert len(written) == len(expected)


def test_every_figure_of_the_table_is_measured_under_its_key() -> None:
    assert set(LAQ_METRICS) - {"collapsed_slots"} <= set(UNMEASURED.to_dict())
    assert set(FOUNDATION_METRICS) <= set(CodeAccuracy.__dataclass_fields__)
    assert set(LANGUAGE_METRICS) <= set(LanguageMetrics.__dataclass_fields__)


def test_no_two_figures_have_one_name() -> None:
    names = [metric.name for table in (LAQ_METRICS, FOUNDATION_METRICS, LANGUAGE_METRICS) for metric in table.values()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("size", "good", "collapsed"), [(2, 1.5, 1.5), (4, 2.0, 1.5), (8, 4.0, 2.0), (64, 32.0, 16.0)])
def test_thresholds_of_perplexity_are_above_a_single_code(size: int, good: float, collapsed: float) -> None:
    assert (good_perplexity(size), collapsed_below(size)) == (good, collapsed)
