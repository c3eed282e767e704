"""Figures are judged against their thresholds, and only those that have one."""

from __future__ import annotations

from typing import Any

import pytest

from hlrp.report.verdicts.foundation import foundation_conclusion, foundation_verdicts
from hlrp.report.verdicts.latent import latent_conclusion, latent_verdicts
from hlrp.report.verdicts.rows import Verdict


def words(verdicts: list[Verdict]) -> dict[str, str]:
    return {verdict.name: verdict.word for verdict in verdicts}


@pytest.mark.parametrize(("r2", "word"), [(0.5, "good"), (0.499, "weak")])
def test_the_probe_decides_at_one_half(report: dict[str, Any], r2: float, word: str) -> None:
    assert words(latent_verdicts(report["laq"] | {"probe_r2": r2}))["probe R² of codes"] == word


@pytest.mark.parametrize(
    ("gain", "interval", "word"),
    [
        (0.03, [0.01, 0.05], "good"),
        (0.03, [-0.01, 0.07], "unsure"),
        (0.03, None, "unsure"),  # a single episode
        (-0.03, None, "weak"),
        (1e-17, [1e-18, 2e-17], "weak"),  # rounding
        (0.011, [0.011, 0.062], "unsure"),  # at an edge of its interval
        (0.061, [0.011, 0.062], "unsure"),
        (0.02, [0.018, 0.06], "unsure"),  # mirrored, the interval reaches below 0
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
        ("permuted_gain_ratio", "gain kept under permuted codes", 0.3, 0.31),
        ("still_change_ratio", "change predicted for still clips", 0.1, 0.11),
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


def test_what_was_not_measured_is_left_out(report: dict[str, Any]) -> None:
    nothing = dict.fromkeys(report["laq"]) | {"clips": 400}
    assert latent_verdicts(nothing) == []
    assert latent_conclusion(nothing).word == "unsure"


def test_a_latent_without_codes_is_ranked_by_its_vectors(report: dict[str, Any]) -> None:
    continuous = report["laq"] | {"probe_r2": None, "probe_r2_quantized": 0.6, "perplexity": None}
    assert words(latent_verdicts(continuous))["probe R² of code vectors"] == "good"


def test_one_collapsed_slot_is_enough_to_be_weak(report: dict[str, Any]) -> None:
    judged = words(latent_verdicts(report["laq"]))
    assert judged["perplexity per slot"] == judged["collapsed slots"] == "weak"
    healthy = report["laq"] | {"perplexity": [3.6, 2.0], "dead_codes": [0, 2]}
    judged = words(latent_verdicts(healthy))
    assert judged["perplexity per slot"] == judged["collapsed slots"] == "good"


@pytest.mark.parametrize("size", [2, 4, 8, 64])
def test_a_collapsed_quantizer_is_weak_and_has_nothing_good(report: dict[str, Any], size: int) -> None:
    usage = [[1 / size] * size] * 2
    laq = report["laq"] | {"perplexity": [1.2, 1.2], "dead_codes": [0, 0], "code_usage": usage}
    judged = words(latent_verdicts(laq | {"probe_r2": 0.3, "probe_gain": 0.02, "probe_gain_interval": [0.02, 0.03]}))
    assert [name for name, word in judged.items() if word == "good"] == []
    assert judged["collapsed slots"] == "weak"
    whole = latent_conclusion(laq)
    assert (whole.word, whole.next_step != "") == ("weak", True)
    assert "2 of 2 slots" in whole.reason


@pytest.mark.parametrize(
    ("clips", "perplexity", "collapsed", "used"),
    [
        (1, [1.0, 1.0], "unsure", "unsure"),
        (2, [2.0, 2.0], "unsure", "unsure"),  # 2 clips with different codes
        (2, [1.0, 2.0], "unsure", "unsure"),
        (10, [6.2, 7.1], "good", "unsure"),
        (10, [3.0, 7.1], "unsure", "unsure"),
        (10, [1.4, 7.1], "weak", "weak"),  # nearly all clips have one code
        (16, [7.8, 9.0], "good", "unsure"),
        (16, [8.0, 9.0], "good", "good"),
        (24, [7.9, 9.0], "good", "weak"),
        (24, [3.9, 9.0], "weak", "weak"),
    ],
)
def test_few_clips_cannot_show_that_codes_stay_unused(
    report: dict[str, Any], clips: int, perplexity: list[float], collapsed: str, used: str
) -> None:
    usage = [[1 / 16] * 16] * 2
    laq = report["laq"] | {"clips": clips, "perplexity": perplexity, "code_usage": usage, "probe_r2": 0.6}
    judged = {verdict.name: verdict for verdict in latent_verdicts(laq)}
    assert judged["collapsed slots"].word == collapsed
    assert judged["perplexity per slot"].word == used
    assert ("cannot tell" in judged["perplexity per slot"].meaning) == (used == "unsure")
    whole = latent_conclusion(laq)
    assert whole.word == used
    assert ("collapsed" in whole.reason) == (collapsed == "weak")
    assert ("cannot show whether every slot uses half of its 16 codes" in whole.reason) == (used == "unsure")


@pytest.mark.parametrize(
    ("figures", "word", "reason"),
    [
        ({}, "good", "more than frame t alone"),
        ({"perplexity": [3.6, 1.0]}, "weak", "1 of 2 slots"),
        ({"copy_gain": 0.0}, "weak", "no closer than frame t repeated"),
        ({"permuted_gain_ratio": 0.4}, "weak", "40% of its gain"),
        ({"perplexity": [3.6, 1.9]}, "weak", "less than half of its codes"),
        ({"probe_r2": None, "probe_r2_quantized": None}, "unsure", "no action that varies"),
        ({"probe_r2": 0.4}, "weak", "less than half of the actions"),
        ({"probe_gain": -0.1}, "weak", "nothing that frame t alone does not tell"),
        ({"probe_gain_interval": None}, "unsure", "cannot tell"),
        (
            {"probe_gain_over_still": -0.01, "probe_gain_over_still_interval": [-0.02, 0.0]},
            "weak",
            "nothing that frame t alone does not tell",
        ),
        ({"probe_gain_over_still": 0.02, "probe_gain_over_still_interval": None}, "unsure", "cannot tell"),
        ({"probe_gain_over_still": 0.02, "probe_gain_over_still_interval": [0.01, 0.03]}, "good", "more than frame t"),
        ({"probe_r2_pixels_and_codes": -0.2}, "weak", "nothing that frame t alone does not tell"),
    ],
)
def test_the_first_thing_that_is_wrong_decides_about_the_whole(
    report: dict[str, Any], figures: dict[str, Any], word: str, reason: str
) -> None:
    healthy = report["laq"] | {"perplexity": [3.6, 2.0], "probe_r2": 0.6}
    whole = latent_conclusion(healthy | figures)
    assert whole.word == word
    assert reason in whole.reason
    assert whole.next_step


def test_a_foundation_model_must_beat_the_constant_guess(report: dict[str, Any]) -> None:
    assert words(foundation_verdicts(report["foundation"]))["decoded accuracy"] == "good"
    assert foundation_conclusion(report["foundation"]).word == "good"
    worse = report["foundation"] | {"decoded_accuracy": 0.255, "gain_over_guessing": 0.0}
    assert words(foundation_verdicts(worse))["decoded accuracy"] == "weak"
    assert foundation_conclusion(worse).word == "weak"


def test_an_accuracy_that_guessing_reaches_is_no_success(report: dict[str, Any]) -> None:
    same = {"decoded_accuracy": 0.922, "constant_guess_accuracy": 0.92, "gain_over_guessing": 0.025}
    for interval in ([0.9215, 0.9225], [0.91, 0.93], None):
        figures = report["foundation"] | same | {"decoded_accuracy_interval": interval}
        assert words(foundation_verdicts(figures))["gain over guessing"] == "weak"
        whole = foundation_conclusion(figures)
        assert whole.word == "weak"
        assert "92.2% of the codes, the best constant guess 92.0%" in whole.reason
        assert "its codes hardly vary" in whole.next_step
    constant = report["foundation"] | {"constant_guess_accuracy": 1.0, "gain_over_guessing": None}
    assert "all labels of these frames are the same" in foundation_conclusion(constant).reason


def test_figures_for_comparison_are_not_judged(report: dict[str, Any]) -> None:
    for verdict in (*latent_verdicts(report["laq"]), *foundation_verdicts(report["foundation"])):
        assert (verdict.wanted == "") == (verdict.word == "–")
        assert verdict.meaning
