"""Figures are judged against their thresholds, and only those that have one."""

from __future__ import annotations

from typing import Any

import pytest

from hlrp.verdicts import Verdict, foundation_verdicts, latent_verdicts


def words(verdicts: list[Verdict]) -> dict[str, str]:
    return {verdict.name: verdict.word for verdict in verdicts}


@pytest.mark.parametrize(("r2", "word"), [(0.5, "good"), (0.499, "weak"), (None, "–")])
def test_the_probe_decides_at_one_half(report: dict[str, Any], r2: float | None, word: str) -> None:
    assert words(latent_verdicts(report["laq"] | {"probe_r2": r2}))["probe R² of codes"] == word


@pytest.mark.parametrize(
    ("gain", "interval", "word"),
    [
        (0.03, [0.01, 0.05], "good"),
        (0.03, [-0.01, 0.07], "weak"),
        (0.03, None, "good"),
        (-0.03, None, "weak"),
    ],
)
def test_the_whole_interval_of_the_gain_must_be_positive(
    report: dict[str, Any], gain: float, interval: list[float] | None, word: str
) -> None:
    laq = report["laq"] | {"probe_gain": gain, "probe_gain_interval": interval}
    assert words(latent_verdicts(laq))["gain over the frame"] == word


@pytest.mark.parametrize(
    ("figure", "name", "good", "weak"),
    [
        ("copy_gain", "gain over copying", 0.001, 0.0),
        ("copy_gain_moving", "gain on moving pixels", 0.001, -0.1),
        ("permuted_gain_ratio", "gain kept under foreign codes", 0.5, 0.51),
        ("still_change_ratio", "change seen in still clips", 0.1, 0.11),
        ("transfer_consistency", "transferred codes", 0.65, 0.64),
        ("still_modal_share", "still clips with one name", 0.8, 0.79),
        ("reversal_correlation", "backwards means opposite", 0.5, 0.49),
    ],
)
def test_every_threshold_decides_where_it_says(
    report: dict[str, Any], figure: str, name: str, good: float, weak: float
) -> None:
    for value, word in ((good, "good"), (weak, "weak")):
        assert words(latent_verdicts(report["laq"] | {figure: value}))[name] == word


def test_what_was_not_measured_is_left_out_but_the_figure_that_ranks(report: dict[str, Any]) -> None:
    nothing = dict.fromkeys(report["laq"]) | {"clips": 400}
    assert words(latent_verdicts(nothing)) == {"probe R² of vectors": "–"}


def test_a_latent_without_codes_is_ranked_by_its_vectors(report: dict[str, Any]) -> None:
    continuous = report["laq"] | {"probe_r2": None, "probe_r2_quantized": 0.6, "perplexity": None}
    assert words(latent_verdicts(continuous))["probe R² of vectors"] == "good"


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
