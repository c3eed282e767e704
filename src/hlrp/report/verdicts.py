"""Judge each metric of a model by its threshold, and the model as a whole, with advice for the next step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hlrp.report.metrics import (
    FOUNDATION_METRICS,
    GOOD_CALIBRATION,
    GOOD_GAIN_OVER_GUESSING,
    GOOD_PERMUTED_RATIO,
    GOOD_PROBE_R2,
    GOOD_REVERSAL,
    GOOD_STILL_CHANGE,
    GOOD_STILL_SHARE,
    GOOD_TRANSFER,
    LANGUAGE_METRICS,
    LAQ_METRICS,
    Metric,
    collapsed_below,
    good_perplexity,
)

Word = Literal["good", "weak", "unsure", "–"]
"""Verdict on a metric: `unsure` if the measured clips do not decide it, a dash if the metric has no threshold."""

_VISIBLE = 1e-3
"""Smallest difference that counts as positive. Smaller ones are shown as 0.000, and may be rounding errors."""
_EDGE = 0.05
"""Share of an interval's width, at both ends, in which an estimate counts as lying at the edge of the interval."""
_CONSTANT_LABELS = 0.9
"""Accuracy of the best constant guess above which the codes hardly vary, so that there is little to predict."""


@dataclass(frozen=True)
class Verdict:
    """One metric with its value, explanation, threshold and verdict."""

    name: str
    value: str
    meaning: str
    wanted: str
    """Threshold in words; empty for a metric that is shown for comparison only."""
    word: Word

    @property
    def good(self) -> bool | None:
        """Whether the metric is good; None if it has no threshold, or the measured clips do not decide it."""
        return {"good": True, "weak": False}.get(self.word)


@dataclass(frozen=True)
class Conclusion:
    """Verdict on a model as a whole."""

    word: Literal["good", "weak", "unsure"]
    reason: str
    """Reason for the verdict, as a sentence."""
    next_step: str
    """Advice for the next step, as a sentence."""

    def to_dict(self) -> dict[str, str]:
        """The conclusion as plain values, for JSON."""
        return dict(vars(self))


# ---- Quantizers ----


def latent_verdicts(laq: Mapping[str, Any]) -> list[Verdict]:
    """Judge the metrics of a quantizer, in the order of a report: the probe R², which ranks quantizers, comes first.

    Args:
        laq: Values of `LAQQuality.to_dict`. Metrics that are None were not measured and get no row.
    """
    rows = (*_probe_rows(laq), *_picture_rows(laq), *_code_rows(laq), *_motion_rows(laq))
    return [row for row in rows if row is not None]


def latent_conclusion(laq: Mapping[str, Any]) -> Conclusion:
    """Judge a quantizer as a whole, from the metrics that `latent_verdicts` judges one by one.

    The first problem found decides, in the order in which problems should be solved: collapsed codes first, then a
    decoder that ignores the codes, then codes that tell little about actions.

    Args:
        laq: Values of `hlrp.measure.laq_quality.LAQQuality.to_dict`.
    """
    collapsed, slots = _collapsed(laq), len(laq["perplexity"] or ())
    if collapsed:
        return Conclusion(
            "weak",
            f"the quantizer collapsed: {collapsed} of {slots} slots say nearly the same code whatever happens",
            "train it longer, with larger batches or with quantizer fsq, and look at clips of the data: something must "
            "move within frame_offset_s",
        )
    if laq["copy_gain"] is not None and laq["copy_gain"] < _VISIBLE:
        return Conclusion(
            "weak",
            "the predicted frame is no closer than frame t repeated, so codes hold no motion",
            "train it longer or at another learning rate, and look at clips of the data: something must move within "
            "frame_offset_s",
        )
    ratio = laq["permuted_gain_ratio"]
    if ratio is not None and ratio > GOOD_PERMUTED_RATIO:
        return Conclusion(
            "weak",
            f"the decoder hardly needs the codes: {ratio:.0%} of its gain is left when clips swap them",
            "keep augmentation.reverse_probability at 0.5 and the views of the encoder on, or use a longer "
            "frame_offset_s, so that frame t alone does not tell the next frame",
        )
    if laq["perplexity"] is not None and not _codes_are_used(laq):
        return Conclusion(
            "weak",
            "a slot uses less than half of its codes",
            "train it longer or with larger batches, or use a smaller codebook_size",
        )
    return _conclusion_of_actions(laq)


def _conclusion_of_actions(laq: Mapping[str, Any]) -> Conclusion:
    r2 = _ranking(laq)
    if r2 is None:
        return Conclusion(
            "unsure",
            "nothing here tells whether the latents mean actions, since no action that varies was measured",
            "run hlrp-inspect-latents on a dataset with actions, or train a policy on the latents and evaluate it",
        )
    if r2 < GOOD_PROBE_R2:
        return Conclusion(
            "weak",
            f"the latents tell less than half of the actions (R² {r2:.2f})",
            "train on more episodes, let a few labelled ones help with labelled_fraction, or try another "
            "frame_offset_s; look whether something else than the robot moves",
        )
    word = _gain_over_frame(laq)
    if word == "weak":
        return Conclusion(
            "weak",
            f"the latents tell the actions (R² {r2:.2f}), but nothing that frame t alone does not tell",
            "let a few labelled episodes help with labelled_fraction, or use data whose next motion the picture does "
            "not give away",
        )
    if word == "unsure":
        return Conclusion(
            "unsure",
            f"the latents tell the actions (R² {r2:.2f}), but whether more than frame t does, these episodes cannot "
            "tell",
            "measure on more episodes: hlrp-inspect-latents, or train with a larger held_out",
        )
    return Conclusion(
        "good",
        f"the latents tell the actions (R² {r2:.2f}), more than frame t alone does",
        "label the dataset with hlrp-precompute-latent-codes",
    )


def _probe_rows(laq: Mapping[str, Any]) -> list[Verdict | None]:
    """Verdicts on probes of actions; empty if no actions were measured."""
    ranking, gain = _ranking(laq), laq["probe_gain"]
    if ranking is None:
        return []
    first = "probe_r2" if laq["probe_r2"] is not None else "probe_r2_quantized"
    compared = ("probe_r2_quantized", "probe_r2_vectors", "probe_r2_frame_only", "probe_r2_pixels")
    return [
        _judged(
            LAQ_METRICS[first],
            _with_interval(ranking, laq["probe_r2_interval"]),
            _word(ranking >= GOOD_PROBE_R2),
            f"≥ {GOOD_PROBE_R2:g}",
        ),
        *(_shown(LAQ_METRICS[key], laq[key]) for key in (*compared, "probe_r2_pixels_and_codes") if key != first),
        _judged(
            LAQ_METRICS["probe_gain"],
            _with_interval(gain, laq["probe_gain_interval"]),
            _gain_over_frame(laq),
            "interval > 0",
        ),
    ]


def _picture_rows(laq: Mapping[str, Any]) -> list[Verdict | None]:
    agreement, chance = laq["transfer_consistency"], laq["transfer_chance"]
    rows = [
        *(_above_zero(LAQ_METRICS[key], laq[key]) for key in ("copy_gain", "copy_gain_moving")),
        _at_most(LAQ_METRICS["permuted_gain_ratio"], laq["permuted_gain_ratio"], GOOD_PERMUTED_RATIO),
        _at_most(LAQ_METRICS["still_change_ratio"], laq["still_change_ratio"], GOOD_STILL_CHANGE),
    ]
    if agreement is not None:
        transfer = LAQ_METRICS["transfer_consistency"]
        wanted = chance + GOOD_TRANSFER * (1 - chance)
        meaning = f"{transfer.meaning}; {chance:.2f} is chance, {laq['self_consistency']:.2f} their own frame"
        row = Verdict(transfer.name, f"{agreement:.3f}", meaning, f"≥ {wanted:.2f}", _word(agreement >= wanted))
        rows.append(row)
    rows.append(_shown(LAQ_METRICS["transfer_r2"], laq["transfer_r2"]))
    return [_unless_trivial(row, laq) for row in rows]


def _code_rows(laq: Mapping[str, Any]) -> list[Verdict | None]:
    if laq["perplexity"] is None:
        return []
    size, slots, collapsed = len(laq["code_usage"][0]), len(laq["perplexity"]), _collapsed(laq)
    entropy = LAQ_METRICS["tuple_entropy_bits"]
    return [
        _judged(
            LAQ_METRICS["perplexity"],
            f"{' '.join(f'{slot:.1f}' for slot in laq['perplexity'])} of {size}",
            _word(_codes_are_used(laq)),
            f"every slot ≥ {good_perplexity(size):g}",
        ),
        _judged(LAQ_METRICS["collapsed_slots"], f"{collapsed} of {slots}", _word(collapsed == 0), "0"),
        _judged(LAQ_METRICS["dead_codes"], " ".join(str(dead) for dead in laq["dead_codes"])),
        Verdict(
            entropy.name,
            f"{laq['tuple_entropy_bits']:.1f} of {laq['tuple_entropy_bits_max']:.1f} bits",
            f"{entropy.meaning}; {laq['distinct_tuples']} different tuples in {laq['clips']} clips",
            "",
            "–",
        ),
    ]


def _motion_rows(laq: Mapping[str, Any]) -> list[Verdict | None]:
    return [
        _unless_trivial(
            _at_least(LAQ_METRICS["still_modal_share"], laq["still_modal_share"], GOOD_STILL_SHARE), laq
        ),
        _unless_trivial(
            _at_least(LAQ_METRICS["reversal_correlation"], laq["reversal_correlation"], GOOD_REVERSAL), laq
        ),
        _shown(LAQ_METRICS["reversal_changed_codes"], laq["reversal_changed_codes"]),
    ]  # fmt: skip


def _ranking(laq: Mapping[str, Any]) -> float | None:
    """Probe R² of one-hot codes, or of code vectors for a quantizer without codes; None if no actions were measured."""
    return laq["probe_r2_quantized"] if laq["probe_r2"] is None else laq["probe_r2"]


def _collapsed(laq: Mapping[str, Any]) -> int:
    """Number of collapsed code slots."""
    if laq["perplexity"] is None:
        return 0
    lowest = collapsed_below(len(laq["code_usage"][0]))
    return sum(slot < lowest for slot in laq["perplexity"])


def _codes_are_used(laq: Mapping[str, Any]) -> bool:
    return min(laq["perplexity"]) >= good_perplexity(len(laq["code_usage"][0]))


def _unless_trivial(row: Verdict | None, laq: Mapping[str, Any]) -> Verdict | None:
    """Change the verdict "good" to "unsure" if all slots collapsed: constant codes pass these tests too."""
    is_trivial = laq["perplexity"] is not None and _collapsed(laq) == len(laq["perplexity"])
    if row is None or row.word != "good" or not is_trivial:
        return row
    return Verdict(row.name, row.value, f"{row.meaning}; says nothing of collapsed codes", row.wanted, "unsure")


# ---- Foundation models ----


def foundation_verdicts(figures: Mapping[str, Any], language: Mapping[str, Any] | None = None) -> list[Verdict]:
    """Judge the metrics of a foundation model on held-out frames.

    Args:
        figures: Values of `hlrp.measure.code_accuracy.CodeFigures`.
        language: Values of `hlrp.measure.language.LanguageFigures`; None if they were not measured.
    """
    guess, gain = figures["constant_guess_accuracy"], figures["gain_over_guessing"]
    bits, entropy = sum(figures["cross_entropy_bits"]), sum(figures["label_entropy_bits"])
    constant, span = FOUNDATION_METRICS["constant_guess_accuracy"], FOUNDATION_METRICS["last_code_accuracy"]
    origin = "of training" if figures["constant_guess_is_of_training"] else "of these frames"
    last = figures["last_code_accuracy"]
    rows = [
        _judged(
            FOUNDATION_METRICS["decoded_accuracy"],
            _with_interval(figures["decoded_accuracy"], figures["decoded_accuracy_interval"]),
            _better_than_guessing(figures),
            f"interval > {guess:.3f}",
        ),
        Verdict(constant.name, f"{guess:.3f}", f"{constant.meaning} {origin}", "", "–"),
        None if gain is None else _judged(
            FOUNDATION_METRICS["gain_over_guessing"], f"{gain:.3f}", _gain_word(figures),
            f"≥ {GOOD_GAIN_OVER_GUESSING:g}",
        ),
        None if last is None else Verdict(
            span.name, f"{last:.3f}", f"{span.meaning}; on {figures['last_code_frames']} frames", "", "–"
        ),
        _shown(FOUNDATION_METRICS["teacher_forced_accuracy"], figures["teacher_forced_accuracy"]),
        _shown(FOUNDATION_METRICS["exact_sequence_accuracy"], figures["exact_sequence_accuracy"]),
        _judged(
            FOUNDATION_METRICS["cross_entropy_bits"], f"{bits:.2f} bits", _word(bits < entropy), f"< {entropy:.2f} bits"
        ),
        _at_most(FOUNDATION_METRICS["calibration_error"], figures["calibration_error"], GOOD_CALIBRATION),
        *_language_rows(language),
    ]  # fmt: skip
    return [row for row in rows if row is not None]


def foundation_conclusion(figures: Mapping[str, Any]) -> Conclusion:
    """Judge a foundation model as a whole; the first problem found decides."""
    accuracy, guess, gain = (
        figures[name] for name in ("decoded_accuracy", "constant_guess_accuracy", "gain_over_guessing")
    )
    if gain is None:
        return Conclusion(
            "unsure",
            "all labels of these frames are the same, so there is nothing to predict",
            "look at the quantizer with hlrp-inspect-latents: its codes must vary",
        )
    compared = f"it names {accuracy:.1%} of the codes, the best constant guess {guess:.1%}"
    word = _gain_word(figures)
    if word == "weak":
        return Conclusion(
            "weak",
            f"the model does no better than guessing: {compared}",
            "look at the quantizer with hlrp-inspect-latents: its codes hardly vary"
            if guess > _CONSTANT_LABELS
            else "train it longer or at another learning rate, and look whether the labels mean anything with "
            "hlrp-inspect-latents",
        )
    if word == "unsure":
        return Conclusion(
            "unsure",
            f"these episodes cannot tell whether the model does better than guessing: {compared}",
            "validate on more episodes, with a larger held_out",
        )
    return Conclusion(
        "good",
        f"the model goes {gain:.0%} of the way from guessing to all codes right: {compared}",
        "train a policy on it: lerobot-train --policy.type=hlrp_vla_direct --policy.vla_checkpoint_path=…",
    )


def _better_than_guessing(figures: Mapping[str, Any]) -> Word:
    """Whether the accuracy of decoded codes is above that of the best constant guess with its whole interval."""
    guess, interval = figures["constant_guess_accuracy"], figures["decoded_accuracy_interval"]
    above = None if interval is None else (interval[0] - guess, interval[1] - guess)
    return _above_zero_for_sure(figures["decoded_accuracy"] - guess, above)


def _gain_word(figures: Mapping[str, Any]) -> Word:
    """Verdict on the gain over guessing: good if it is large enough and its interval lies above 0."""
    if figures["gain_over_guessing"] < GOOD_GAIN_OVER_GUESSING:
        return "weak"
    return _better_than_guessing(figures)


def _language_rows(language: Mapping[str, Any] | None) -> list[Verdict | None]:
    if language is None:
        return []
    worth, changed = LANGUAGE_METRICS["accuracy_drop"], LANGUAGE_METRICS["changed_share"]
    if language["changed_share"] is None or language["total_variation"] is None:
        return [Verdict(worth.name, "–", f"not measured: {language['reason']}", "", "–")]
    drop = language["accuracy_drop"]
    both = "" if drop is None else f"; {language['accuracy']:.3f} falls to {language['swapped_accuracy']:.3f}"
    return [
        None if drop is None else Verdict(worth.name, f"{drop:.3f}", f"{worth.meaning}{both}", "", "–"),
        Verdict(
            changed.name, f"{language['changed_share']:.3f}", f"{changed.meaning}; of {language['frames']} frames", "",
            "–",
        ),
        _judged(
            LANGUAGE_METRICS["total_variation"], " ".join(f"{value:.2f}" for value in language["total_variation"])
        ),
    ]  # fmt: skip


# ---- Words ----


def _word(is_good: bool) -> Word:
    return "good" if is_good else "weak"


def _above_zero_for_sure(value: float, interval: Sequence[float] | None) -> Word:
    """Whether a difference is positive with its whole bootstrap interval, both the percentile and the basic interval.

    The basic interval is the percentile interval mirrored at the estimate. If resampling biases the scores upwards, the
    basic interval reaches further down. Without an interval (a single episode), the verdict is unsure.
    """
    if value < _VISIBLE:
        return "weak"
    if interval is None:
        return "unsure"
    return "good" if interval[0] > 0 and 2 * value - interval[1] > 0 else "unsure"


def _gain_over_frame(laq: Mapping[str, Any]) -> Word:
    """Verdict on `probe_gain`, as by `_above_zero_for_sure`; also unsure if the estimate lies at an edge of its
    interval, which happens if very few episodes determine the interval."""
    gain, interval = laq["probe_gain"], laq["probe_gain_interval"]
    word = _above_zero_for_sure(gain, interval)
    if word != "good":
        return word
    margin = _EDGE * (interval[1] - interval[0])
    return "good" if interval[0] + margin < gain < interval[1] - margin else "unsure"


def _judged(metric: Metric, value: str, word: Word = "–", wanted: str = "") -> Verdict:
    return Verdict(metric.name, value, metric.meaning, wanted, word)


def _shown(metric: Metric, value: float | None) -> Verdict | None:
    """Row for a metric without threshold; None if it was not measured."""
    return None if value is None else _judged(metric, f"{value:.3f}")


def _at_least(metric: Metric, value: float | None, threshold: float) -> Verdict | None:
    return None if value is None else _judged(metric, f"{value:.3f}", _word(value >= threshold), f"≥ {threshold:g}")


def _at_most(metric: Metric, value: float | None, threshold: float) -> Verdict | None:
    return None if value is None else _judged(metric, f"{value:.3f}", _word(value <= threshold), f"≤ {threshold:g}")


def _above_zero(metric: Metric, value: float | None) -> Verdict | None:
    return None if value is None else _judged(metric, f"{value:.3f}", _word(value >= _VISIBLE), "> 0")


def _with_interval(value: float, interval: Sequence[float] | None) -> str:
    return f"{value:.3f}" if interval is None else f"{value:.3f} ({interval[0]:.2f} … {interval[1]:.2f})"
