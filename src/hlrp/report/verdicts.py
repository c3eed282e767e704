"""Verdicts on the metrics of a run: one per metric, and one on the model as a whole with the next step to take."""

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
"""Verdict on a metric: `unsure` if the measured clips are too few to decide, a dash if the metric has no threshold."""

_VISIBLE = 1e-3
"""Smallest difference that counts as one. Smaller ones print as 0.000, and rounding leaves about 1e-17 if nothing was
learnt."""
_EDGE = 0.05
"""Share of an interval's width at each end; an estimate that lies there counts as lying at the edge of its interval."""
_CONSTANT_LABELS = 0.9
"""Accuracy of the best constant guess above which the codes hardly vary, so that there is little to predict."""


@dataclass(frozen=True)
class Verdict:
    """One metric with its explanation, its threshold and the verdict on its value."""

    name: str
    value: str
    meaning: str
    wanted: str
    """Threshold in words; empty for a metric that is only shown for comparison."""
    word: Word

    @property
    def good(self) -> bool | None:
        """Whether the metric reaches its threshold; None if it has no threshold or the verdict is `unsure`."""
        return {"good": True, "weak": False}.get(self.word)


@dataclass(frozen=True)
class Conclusion:
    """Verdict on a model as a whole."""

    word: Literal["good", "weak", "unsure"]
    reason: str
    """Reason for the verdict: one sentence without a full stop."""
    next_step: str
    """What the user should do next: one sentence without a full stop."""

    def to_dict(self) -> dict[str, str]:
        """Return the fields as JSON values."""
        return dict(vars(self))


# ---- Quantizers ----


def latent_verdicts(laq: Mapping[str, Any]) -> list[Verdict]:
    """Judge the metrics of a quantizer, in the order of their importance; the probe R² that ranks quantizers is first.

    Metrics that were not measured are left out: metrics of codes for a continuous latent, metrics of predicted frames
    for a model that predicts none, and metrics of actions if the dataset has none or none varies.

    Args:
        laq: `hlrp.measure.laq_quality.LAQQuality` as a dictionary.
    """
    rows = (*_probe_rows(laq), *_picture_rows(laq), *_code_rows(laq), *_motion_rows(laq))
    return [row for row in rows if row is not None]


def latent_conclusion(laq: Mapping[str, Any]) -> Conclusion:
    """Judge a quantizer as a whole, from the metrics that `latent_verdicts` judges one by one.

    The first problem that is found decides. Problems are checked in the order in which they must be fixed: collapsed
    codes, codes without motion, codes that the decoder ignores, unused codes, and at last codes that do not predict
    actions.

    Args:
        laq: `hlrp.measure.laq_quality.LAQQuality` as a dictionary.
    """
    collapsed, slots = _collapsed(laq), len(laq["perplexity"] or ())
    if collapsed:
        return Conclusion(
            "weak",
            f"the quantizer collapsed: {collapsed} of {slots} slots give nearly all clips the same code",
            "train it longer, with larger batches or with quantizer fsq, and look at clips of the data: something must "
            "move within frame_offset_s",
        )
    if laq["copy_gain"] is not None and laq["copy_gain"] < _VISIBLE:
        return Conclusion(
            "weak",
            "the predicted frame is no closer than frame t repeated, so the codes hold no motion",
            "train it longer or at another learning rate, and look at clips of the data: something must move within "
            "frame_offset_s",
        )
    ratio = laq["permuted_gain_ratio"]
    if ratio is not None and ratio > GOOD_PERMUTED_RATIO:
        return Conclusion(
            "weak",
            f"the decoder hardly needs the codes: {ratio:.0%} of its gain remains with the codes of other clips",
            "keep augmentation.reverse_probability at 0.5 and the views of the encoder on, or use a longer "
            "frame_offset_s, so that the next frame cannot be predicted from frame t alone",
        )
    if laq["perplexity"] is not None and not _codes_are_used(laq):
        return Conclusion(
            "weak",
            "a slot uses less than half of its codes",
            "train it longer or with larger batches, or use a smaller codebook_size",
        )
    return _conclusion_of_actions(laq)


def _conclusion_of_actions(laq: Mapping[str, Any]) -> Conclusion:
    """Judge how well the latents predict actions, for a quantizer whose codes are used by the decoder."""
    r2 = _ranking(laq)
    if r2 is None:
        return Conclusion(
            "unsure",
            "it is unknown whether the latents describe actions, since no action that varies was measured",
            "run hlrp-inspect-latents on a dataset with actions, or train a policy on the latents and evaluate it",
        )
    if r2 < GOOD_PROBE_R2:
        return Conclusion(
            "weak",
            f"the latents explain less than half of the actions' variance (R² {r2:.2f})",
            "train on more episodes, use the actions of a few episodes with labelled_fraction, or try another "
            "frame_offset_s; look at the data, whether something other than the robot moves",
        )
    word = _gain_over_frame(laq)
    if word == "weak":
        return Conclusion(
            "weak",
            f"the latents predict the actions (R² {r2:.2f}), but add nothing that frame t alone does not tell",
            "use the actions of a few episodes with labelled_fraction, or data whose next motion cannot be predicted "
            "from one frame",
        )
    if word == "unsure":
        return Conclusion(
            "unsure",
            f"the latents predict the actions (R² {r2:.2f}), but these episodes cannot tell whether they add anything "
            "to frame t",
            "measure on more episodes: run hlrp-inspect-latents on other data, or train with a larger held_out",
        )
    return Conclusion(
        "good",
        f"the latents predict the actions (R² {r2:.2f}) and tell more than frame t alone",
        "label the dataset with hlrp-precompute-latent-codes",
    )


def _probe_rows(laq: Mapping[str, Any]) -> list[Verdict | None]:
    """Verdicts on the linear probes of actions; empty if no action was measured."""
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
    """Verdicts on the predicted frames: gain over copying, permuted, still and transferred codes."""
    agreement, chance = laq["transfer_consistency"], laq["transfer_chance"]
    rows = [
        *(_above_zero(LAQ_METRICS[key], laq[key]) for key in ("copy_gain", "copy_gain_moving")),
        _at_most(LAQ_METRICS["permuted_gain_ratio"], laq["permuted_gain_ratio"], GOOD_PERMUTED_RATIO),
        _at_most(LAQ_METRICS["still_change_ratio"], laq["still_change_ratio"], GOOD_STILL_CHANGE),
    ]
    if agreement is not None:
        transfer = LAQ_METRICS["transfer_consistency"]
        wanted = chance + GOOD_TRANSFER * (1 - chance)  # Cohen's kappa of GOOD_TRANSFER, as a share of codes
        own = laq["self_consistency"]
        meaning = f"{transfer.meaning}; {chance:.2f} is chance, {own:.2f} is reached on the clip's own frame"
        row = Verdict(transfer.name, f"{agreement:.3f}", meaning, f"≥ {wanted:.2f}", _word(agreement >= wanted))
        rows.append(row)
    rows.append(_shown(LAQ_METRICS["transfer_r2"], laq["transfer_r2"]))
    return [_unless_trivial(row, laq) for row in rows]


def _code_rows(laq: Mapping[str, Any]) -> list[Verdict | None]:
    """Verdicts on the use of the codebook; empty for a continuous latent, which has no codes."""
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
    """Verdicts on the codes of still clips and of clips played backwards."""
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
    """Return the metric that ranks quantizers: the probe R² of one-hot codes, or of the vectors of a continuous latent.

    None if no action was measured.
    """
    return laq["probe_r2_quantized"] if laq["probe_r2"] is None else laq["probe_r2"]


def _collapsed(laq: Mapping[str, Any]) -> int:
    """Count the collapsed slots, whose perplexity is below `collapsed_below`; 0 for a continuous latent."""
    if laq["perplexity"] is None:
        return 0
    lowest = collapsed_below(len(laq["code_usage"][0]))
    return sum(slot < lowest for slot in laq["perplexity"])


def _codes_are_used(laq: Mapping[str, Any]) -> bool:
    """Return whether the perplexity of every slot reaches its threshold."""
    return min(laq["perplexity"]) >= good_perplexity(len(laq["code_usage"][0]))


def _unless_trivial(row: Verdict | None, laq: Mapping[str, Any]) -> Verdict | None:
    """Change the verdict from good to unsure if all slots collapsed.

    Codes that never change survive transfer and stillness without describing any motion, so a good value is no merit.
    """
    is_trivial = laq["perplexity"] is not None and _collapsed(laq) == len(laq["perplexity"])
    if row is None or row.word != "good" or not is_trivial:
        return row
    return Verdict(row.name, row.value, f"{row.meaning}; says nothing of collapsed codes", row.wanted, "unsure")


# ---- Foundation models ----


def foundation_verdicts(figures: Mapping[str, Any], language: Mapping[str, Any] | None = None) -> list[Verdict]:
    """Judge the metrics of a foundation model on held-out frames.

    Args:
        figures: `hlrp.measure.code_accuracy.CodeAccuracy` as a dictionary.
        language: `hlrp.measure.language.LanguageMetrics` as a dictionary; None if not measured.
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
    """Judge a foundation model as a whole; the first problem that is found decides.

    Args:
        figures: `hlrp.measure.code_accuracy.CodeAccuracy` as a dictionary.
    """
    accuracy, guess, gain = (
        figures[name] for name in ("decoded_accuracy", "constant_guess_accuracy", "gain_over_guessing")
    )
    if gain is None:
        return Conclusion(
            "unsure",
            "all labels of these frames are the same, so there is nothing to predict",
            "look at the quantizer with hlrp-inspect-latents: its codes must vary",
        )
    compared = f"it predicts {accuracy:.1%} of the codes, the best constant guess {guess:.1%}"
    word = _gain_word(figures)
    if word == "weak":
        return Conclusion(
            "weak",
            f"the model does no better than guessing: {compared}",
            "look at the quantizer with hlrp-inspect-latents: its codes hardly vary"
            if guess > _CONSTANT_LABELS
            else "train it longer or at another learning rate, and check the quality of the labels with "
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
        f"the model covers {gain:.0%} of the way from the best constant guess to all codes right: {compared}",
        "train a policy on it: lerobot-train --policy.type=hlrp_vla_direct --policy.vla_checkpoint_path=…",
    )


def _better_than_guessing(figures: Mapping[str, Any]) -> Word:
    """Judge whether the decoded accuracy exceeds the best constant guess, by its bootstrap interval."""
    guess, interval = figures["constant_guess_accuracy"], figures["decoded_accuracy_interval"]
    above = None if interval is None else (interval[0] - guess, interval[1] - guess)
    return _above_zero_for_sure(figures["decoded_accuracy"] - guess, above)


def _gain_word(figures: Mapping[str, Any]) -> Word:
    """Judge the gain over guessing: good only if it reaches its threshold and its interval excludes 0."""
    if figures["gain_over_guessing"] < GOOD_GAIN_OVER_GUESSING:
        return "weak"
    return _better_than_guessing(figures)


def _language_rows(language: Mapping[str, Any] | None) -> list[Verdict | None]:
    """Rows on the effect of the instruction; they have no threshold, since its use depends on the tasks."""
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
    """Judge whether the difference `value` is above 0, given its 95 % percentile bootstrap interval.

    The verdict is good if both the percentile interval and the basic bootstrap interval (the percentile interval
    mirrored at the estimate) lie above 0. The second one guards against an estimate near the lower end of its
    percentile interval, which resampling biases upwards. Without an interval (a single episode) it is unsure.
    """
    if value < _VISIBLE:
        return "weak"
    if interval is None:
        return "unsure"
    return "good" if interval[0] > 0 and 2 * value - interval[1] > 0 else "unsure"


def _gain_over_frame(laq: Mapping[str, Any]) -> Word:
    """Judge whether codes add to what the pixels of frame t predict of the actions.

    Unlike `_above_zero_for_sure`, it is also unsure if the estimate lies at an edge of its interval: then a few
    episodes determine the estimate.
    """
    gain, interval = laq["probe_gain"], laq["probe_gain_interval"]
    word = _above_zero_for_sure(gain, interval)
    if word != "good":
        return word
    margin = _EDGE * (interval[1] - interval[0])
    return "good" if interval[0] + margin < gain < interval[1] - margin else "unsure"


def _judged(metric: Metric, value: str, word: Word = "–", wanted: str = "") -> Verdict:
    return Verdict(metric.name, value, metric.meaning, wanted, word)


def _shown(metric: Metric, value: float | None) -> Verdict | None:
    """Row of a metric without a threshold, shown for comparison; None if it was not measured."""
    return None if value is None else _judged(metric, f"{value:.3f}")


def _at_least(metric: Metric, value: float | None, threshold: float) -> Verdict | None:
    return None if value is None else _judged(metric, f"{value:.3f}", _word(value >= threshold), f"≥ {threshold:g}")


def _at_most(metric: Metric, value: float | None, threshold: float) -> Verdict | None:
    return None if value is None else _judged(metric, f"{value:.3f}", _word(value <= threshold), f"≤ {threshold:g}")


def _above_zero(metric: Metric, value: float | None) -> Verdict | None:
    return None if value is None else _judged(metric, f"{value:.3f}", _word(value >= _VISIBLE), "> 0")


def _with_interval(value: float, interval: Sequence[float] | None) -> str:
    return f"{value:.3f}" if interval is None else f"{value:.3f} ({interval[0]:.2f} … {interval[1]:.2f})"
