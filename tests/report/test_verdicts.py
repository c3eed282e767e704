"""Figures are judged against their thresholds, and only those that have one."""

from __future__ import annotations

from typing import Any

import pytest

from hlrp.report.verdicts import Verdict, foundation_verdicts, latent_verdicts


def words(verdicts: list[Verdict]) -> dict[str, str]:
    return {verdict.name: verdict.word for verdict in verdicts}


@pytest.mark.parametrize(("r2", "word"), [(0.5, "good"), (0.499, "weak"), (None, "–")])
def test_the_probe_decides_at_one_half(report: dict[str, Any], r2: float | None, word: str) -> None:
    assert words(latent_verdicts(report["laq"] | {"probe_r2": r2}))["probe R² of codes"] == word


@pytest.mark.parametrize(("gain", "word"), [(0.001, "good"), (0.0, "weak"), (-0.1, "weak")])
def test_gains_must_be_positive(report: dict[str, Any], gain: float, word: str) -> None:
    judged = words(latent_verdicts(report["laq"] | {"probe_gain": gain, "copy_gain": gain}))
    assert judged["gain over the frame"] == judged["gain over copying"] == word


def test_one_collapsed_slot_is_enough_to_be_weak(report: dict[str, Any]) -> None:
    judged = words(latent_verdicts(report["laq"]))
    assert judged["perplexity per slot"] == judged["dead slots"] == "weak"
    healthy = report["laq"] | {"perplexity": [3.6, 2.0], "dead_codes": [0, 2]}
    judged = words(latent_verdicts(healthy))
    assert judged["perplexity per slot"] == judged["dead slots"] == "good"


def test_a_foundation_model_must_beat_the_constant_guess(report: dict[str, Any]) -> None:
    assert words(foundation_verdicts(report["foundation"]))["decoded accuracy"] == "good"
    worse = report["foundation"] | {"decoded_accuracy": 0.255}
    assert words(foundation_verdicts(worse))["decoded accuracy"] == "weak"


def test_figures_for_comparison_are_not_judged(report: dict[str, Any]) -> None:
    for verdict in (*latent_verdicts(report["laq"]), *foundation_verdicts(report["foundation"])):
        assert (verdict.wanted == "") == (verdict.good is None)
        assert verdict.meaning
