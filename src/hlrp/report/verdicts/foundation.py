"""Verdicts on the metrics of a foundation model, and on the model as a whole.

In all functions, `quality` holds the metrics of predicted codes (`hlrp.measure.code_accuracy`) and `language` those of
the effect of the instruction (`hlrp.measure.language`), both as dictionaries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hlrp.report.metrics import FOUNDATION_METRICS, GOOD_CALIBRATION, GOOD_GAIN_OVER_GUESSING, LANGUAGE_METRICS
from hlrp.report.verdicts.rows import (
    Conclusion,
    Verdict,
    Word,
    at_most,
    good_or_weak,
    surely_above_zero,
    with_interval,
    without_threshold,
)

_CONSTANT_LABELS = 0.9
"""Accuracy of the best constant guess above which the codes hardly vary, so that there is little to predict."""


def foundation_verdicts(quality: Mapping[str, Any], language: Mapping[str, Any] | None = None) -> list[Verdict]:
    """Judge the metrics of a foundation model on held-out frames.

    Args:
        quality: Metrics of the predicted codes.
        language: Metrics of the same frames under other instructions; None if not measured.
    """
    bits, entropy = sum(quality["cross_entropy_bits"]), sum(quality["label_entropy_bits"])
    rows = [
        *_accuracy_rows(quality),
        without_threshold(FOUNDATION_METRICS["teacher_forced_accuracy"], quality["teacher_forced_accuracy"]),
        without_threshold(FOUNDATION_METRICS["exact_sequence_accuracy"], quality["exact_sequence_accuracy"]),
        Verdict.of(
            FOUNDATION_METRICS["cross_entropy_bits"],
            f"{bits:.2f} bits",
            good_or_weak(bits < entropy),
            f"< {entropy:.2f} bits",
        ),
        at_most(FOUNDATION_METRICS["calibration_error"], quality["calibration_error"], GOOD_CALIBRATION),
        *([] if language is None else _language_rows(language)),
    ]
    return [row for row in rows if row is not None]


def foundation_conclusion(quality: Mapping[str, Any]) -> Conclusion:
    """Judge a foundation model as a whole; the first problem that is found decides."""
    accuracy, guess, gain = (
        quality[name] for name in ("decoded_accuracy", "constant_guess_accuracy", "gain_over_guessing")
    )
    if gain is None:
        return Conclusion(
            "unsure",
            "all labels of these frames are the same, so there is nothing to predict",
            "look at the quantizer with hlrp-inspect-latents: its codes must vary",
        )
    compared = f"it predicts {accuracy:.1%} of the codes, the best constant guess {guess:.1%}"
    # Judged by the gain and not by the accuracy: where one code is frequent, guessing it has a high accuracy too.
    word = _gain_word(quality)
    if word == "weak":
        reason = f"the model does no better than guessing: {compared}"
        return Conclusion("weak", reason, _remedy_for_guessing(labels_are_constant=guess > _CONSTANT_LABELS))
    if word == "unsure":
        return Conclusion(
            "unsure",
            f"these episodes are too few to show whether the model does better than guessing: {compared}",
            "validate on more episodes, with a larger held_out",
        )
    return Conclusion(
        "good",
        f"the model covers {gain:.0%} of the way from the best constant guess to all codes right: {compared}",
        "train a policy on it: lerobot-train --policy.type=hlrp_vla_direct --policy.vla_checkpoint_path=…",
    )


def _remedy_for_guessing(*, labels_are_constant: bool) -> str:
    """Next step for a model that does no better than guessing: the cause is in the labels or in the training."""
    if labels_are_constant:
        return "look at the quantizer with hlrp-inspect-latents: its codes hardly vary"
    return "train it longer or at another learning rate, and check the quality of the labels with hlrp-inspect-latents"


def _accuracy_rows(quality: Mapping[str, Any]) -> list[Verdict | None]:
    """Verdicts on the decoded accuracy and on the simple guesses that it is compared with."""
    guess, gain, last = (
        quality[name] for name in ("constant_guess_accuracy", "gain_over_guessing", "last_code_accuracy")
    )
    origin = "of training" if quality["constant_guess_is_of_training"] else "of these frames"
    return [
        Verdict.of(
            FOUNDATION_METRICS["decoded_accuracy"],
            with_interval(quality["decoded_accuracy"], quality["decoded_accuracy_interval"]),
            _better_than_guessing(quality),
            f"interval > {guess:.3f}",
        ),
        Verdict.of(FOUNDATION_METRICS["constant_guess_accuracy"], f"{guess:.3f}", note=f" {origin}"),
        None if gain is None else Verdict.of(
            FOUNDATION_METRICS["gain_over_guessing"], f"{gain:.3f}", _gain_word(quality),
            f"≥ {GOOD_GAIN_OVER_GUESSING:g}",
        ),
        None if last is None else Verdict.of(
            FOUNDATION_METRICS["last_code_accuracy"], f"{last:.3f}", note=f"; on {quality['last_code_frames']} frames"
        ),
    ]  # fmt: skip


def _better_than_guessing(quality: Mapping[str, Any]) -> Word:
    """Judge whether the decoded accuracy exceeds the best constant guess, by its bootstrap interval."""
    guess, interval = quality["constant_guess_accuracy"], quality["decoded_accuracy_interval"]
    # The guess is a fixed number, not resampled with the episodes, so subtracting it shifts the interval.
    above = None if interval is None else (interval[0] - guess, interval[1] - guess)
    return surely_above_zero(quality["decoded_accuracy"] - guess, above)


def _gain_word(quality: Mapping[str, Any]) -> Word:
    """Judge the gain over guessing: good only if it reaches its threshold and its interval excludes 0."""
    if quality["gain_over_guessing"] < GOOD_GAIN_OVER_GUESSING:
        return "weak"
    return _better_than_guessing(quality)


def _language_rows(language: Mapping[str, Any]) -> list[Verdict | None]:
    """Rows on the effect of the instruction; they have no threshold, since its use depends on the tasks."""
    worth, changed = LANGUAGE_METRICS["accuracy_drop"], LANGUAGE_METRICS["changed_share"]
    if language["changed_share"] is None or language["total_variation"] is None:
        return [Verdict(worth.name, "–", f"not measured: {language['reason']}", "", "–")]
    drop = language["accuracy_drop"]
    both = "" if drop is None else f"; {language['accuracy']:.3f} falls to {language['swapped_accuracy']:.3f}"
    return [
        None if drop is None else Verdict.of(worth, f"{drop:.3f}", note=both),
        Verdict.of(changed, f"{language['changed_share']:.3f}", note=f"; of {language['frames']} frames"),
        Verdict.of(
            LANGUAGE_METRICS["total_variation"], " ".join(f"{value:.2f}" for value in language["total_variation"])
        ),
    ]
