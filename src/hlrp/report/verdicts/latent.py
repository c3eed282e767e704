"""Verdicts on the metrics of a latent action quantizer, and on the quantizer as a whole.

In all functions, `laq` is a `hlrp.measure.laq_quality.LAQQuality` as a dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hlrp.report.metrics import (
    ENOUGH_CLIPS,
    GOOD_PERMUTED_RATIO,
    GOOD_PROBE_R2,
    GOOD_REVERSAL,
    GOOD_STILL_CHANGE,
    GOOD_STILL_SHARE,
    GOOD_TRANSFER,
    LAQ_METRICS,
    collapsed_below,
    good_perplexity,
    shows_unused_codes,
)
from hlrp.report.verdicts.rows import (
    SMALLEST_DIFFERENCE,
    Conclusion,
    Verdict,
    Word,
    above_zero,
    at_least,
    at_most,
    good_or_weak,
    surely_above_zero,
    with_interval,
    without_threshold,
)
from hlrp.runtime.tables import with_noun

_EDGE = 0.05
"""Share of an interval's width at each end; an estimate that lies there counts as lying at the edge of its interval."""


def latent_verdicts(laq: Mapping[str, Any]) -> list[Verdict]:
    """Judge the metrics of a quantizer, in the order of their importance; the probe R² that ranks quantizers is first.

    Metrics that were not measured are left out: metrics of codes for a continuous latent, metrics of predicted frames
    for a model that predicts none, and metrics of actions if the dataset has none or none varies.
    """
    rows = (*_probe_rows(laq), *_prediction_rows(laq), *_code_rows(laq), *_motion_rows(laq))
    return [row for row in rows if row is not None]


def latent_conclusion(laq: Mapping[str, Any]) -> Conclusion:
    """Judge a quantizer as a whole, from the metrics that `latent_verdicts` judges one by one.

    The first problem that is found decides. Problems are checked in the order in which they must be fixed: collapsed
    codes, codes without motion, codes that the decoder ignores, unused codes, and at last codes that do not predict
    actions.
    """
    problems = (_collapse(laq), _no_motion(laq), _ignored_codes(laq), _unused_codes(laq))
    return next((problem for problem in problems if problem is not None), None) or _conclusion_of_actions(laq)


# ---- Problems that decide the verdict on the quantizer, each None if the quantizer does not have it ----


def _collapse(laq: Mapping[str, Any]) -> Conclusion | None:
    if _collapse_word(laq) == "weak":
        collapsed, slots = _collapsed(laq), len(laq["perplexity"])
        return Conclusion(
            "weak",
            f"the quantizer collapsed: {collapsed} of {slots} slots give nearly all clips the same code",
            "train it longer, with larger batches or with quantizer fsq, and look at clips of the data: something must "
            "move within frame_offset_s",
        )
    return None


def _no_motion(laq: Mapping[str, Any]) -> Conclusion | None:
    if laq["copy_gain"] is not None and laq["copy_gain"] < SMALLEST_DIFFERENCE:
        return Conclusion(
            "weak",
            "the predicted frame is no closer than frame t repeated, so the codes hold no motion",
            "train it longer or at another learning rate, and look at clips of the data: something must move within "
            "frame_offset_s",
        )
    return None


def _ignored_codes(laq: Mapping[str, Any]) -> Conclusion | None:
    ratio = laq["permuted_gain_ratio"]
    if ratio is not None and ratio > GOOD_PERMUTED_RATIO:
        return Conclusion(
            "weak",
            f"the decoder hardly needs the codes: {ratio:.0%} of its gain remains with the codes of other clips",
            "keep augmentation.reverse_probability at 0.5 and the views of the encoder on, or use a longer "
            "frame_offset_s, so that the next frame cannot be predicted from frame t alone",
        )
    return None


def _unused_codes(laq: Mapping[str, Any]) -> Conclusion | None:
    word = _use_word(laq)
    if word == "weak":
        return Conclusion(
            "weak",
            "a slot uses less than half of its codes",
            "train it longer or with larger batches, or use a smaller codebook_size",
        )
    if word == "unsure":
        return Conclusion(
            "unsure",
            f"{with_noun(laq['clips'], 'clip')} cannot show whether every slot uses half of its {_codebook_size(laq)} "
            "codes",
            "measure on more episodes: run hlrp-inspect-latents on other data, or train with a larger held_out",
        )
    return None


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
    words = {_gain_over_frame(laq), _gain_over_still(laq)}
    return _conclusion_of_gain(r2, next(word for word in ("weak", "unsure", "good") if word in words))


def _conclusion_of_gain(r2: float, gain: Word) -> Conclusion:
    """Judge latents that predict the actions, by whether they add to what frame t shows."""
    if gain == "weak":
        return Conclusion(
            "weak",
            f"the latents predict the actions (R² {r2:.2f}), but add nothing that frame t alone does not tell",
            "use the actions of a few episodes with labelled_fraction, or data whose next motion cannot be predicted "
            "from one frame",
        )
    if gain == "unsure":
        return Conclusion(
            "unsure",
            f"the latents predict the actions (R² {r2:.2f}), but these episodes cannot tell whether they add anything "
            "to frame t",
            "measure on more episodes: run hlrp-inspect-latents on other data, or train with a larger held_out",
        )
    return Conclusion(
        "good",
        f"the latents predict the actions (R² {r2:.2f}) and contain more than frame t alone",
        "label the dataset with hlrp-precompute-latent-codes",
    )


# ---- Verdicts on single metrics ----


def _probe_rows(laq: Mapping[str, Any]) -> list[Verdict | None]:
    """Verdicts on the linear probes of actions; empty if no action was measured."""
    ranking, gain = _ranking(laq), laq["probe_gain"]
    if ranking is None:
        return []
    first = "probe_r2" if laq["probe_r2"] is not None else "probe_r2_quantized"
    compared = (
        "probe_r2_quantized", "probe_r2_vectors", "probe_r2_frame_only", "probe_r2_pixels", "probe_r2_pixels_and_codes",
        "probe_r2_relative", "probe_r2_relative_vectors",
    )  # fmt: skip
    return [
        Verdict.of(
            LAQ_METRICS[first],
            with_interval(ranking, laq["probe_r2_interval"]),
            good_or_weak(ranking >= GOOD_PROBE_R2),
            f"≥ {GOOD_PROBE_R2:g}",
        ),
        *(without_threshold(LAQ_METRICS[key], laq[key]) for key in compared if key != first),
        Verdict.of(
            LAQ_METRICS["probe_gain"],
            with_interval(gain, laq["probe_gain_interval"]),
            _gain_over_frame(laq),
            "interval > 0",
        ),
        _still_row(laq),
    ]


def _still_row(laq: Mapping[str, Any]) -> Verdict | None:
    """Verdict on what codes add to a still clip's; None for a card of an earlier version, which does not say it."""
    gain = laq.get("probe_gain_over_still")
    if gain is None:
        return None
    value = with_interval(gain, laq["probe_gain_over_still_interval"])
    return Verdict.of(LAQ_METRICS["probe_gain_over_still"], value, _gain_over_still(laq), "interval > 0")


def _prediction_rows(laq: Mapping[str, Any]) -> list[Verdict | None]:
    """Verdicts on the predicted frames: gain over copying, permuted, still and transferred codes."""
    rows = [
        *(above_zero(LAQ_METRICS[key], laq[key]) for key in ("copy_gain", "copy_gain_moving")),
        at_most(LAQ_METRICS["permuted_gain_ratio"], laq["permuted_gain_ratio"], GOOD_PERMUTED_RATIO),
        at_most(LAQ_METRICS["still_change_ratio"], laq["still_change_ratio"], GOOD_STILL_CHANGE),
        _transfer_row(laq),
        without_threshold(LAQ_METRICS["transfer_r2"], laq["transfer_r2"]),
    ]
    return [_unless_trivial(row, laq) for row in rows]


def _transfer_row(laq: Mapping[str, Any]) -> Verdict | None:
    """Verdict on codes that are read back from frames of other episodes; None if they were not measured."""
    agreement, chance = laq["transfer_consistency"], laq["transfer_chance"]
    if agreement is None:
        return None
    wanted = chance + GOOD_TRANSFER * (1 - chance)  # Cohen's kappa of GOOD_TRANSFER, as a share of codes
    return Verdict.of(
        LAQ_METRICS["transfer_consistency"],
        f"{agreement:.3f}",
        good_or_weak(agreement >= wanted),
        f"≥ {wanted:.2f}",
        note=f"; {chance:.2f} is chance, {laq['self_consistency']:.2f} is reached on the clip's own frame",
    )


def _code_rows(laq: Mapping[str, Any]) -> list[Verdict | None]:
    """Verdicts on the use of the codebook; empty for a continuous latent, which has no codes."""
    if laq["perplexity"] is None:
        return []
    size, slots = _codebook_size(laq), len(laq["perplexity"])
    use, collapse = _use_word(laq), _collapse_word(laq)
    too_few = f"; {with_noun(laq['clips'], 'clip')} cannot tell"
    return [
        Verdict.of(
            LAQ_METRICS["perplexity"],
            f"{' '.join(f'{slot:.1f}' for slot in laq['perplexity'])} of {size}",
            use,
            f"every slot ≥ {good_perplexity(size):g}",
            note=too_few if use == "unsure" else "",
        ),
        Verdict.of(
            LAQ_METRICS["collapsed_slots"],
            f"{_collapsed(laq)} of {slots}",
            collapse,
            "0",
            note=too_few if collapse == "unsure" else "",
        ),
        Verdict.of(LAQ_METRICS["dead_codes"], " ".join(str(dead) for dead in laq["dead_codes"])),
        Verdict.of(
            LAQ_METRICS["tuple_entropy_bits"],
            f"{laq['tuple_entropy_bits']:.1f} of {laq['tuple_entropy_bits_max']:.1f} bits",
            note=f"; {laq['distinct_tuples']} different tuples in {laq['clips']} clips",
        ),
    ]


def _motion_rows(laq: Mapping[str, Any]) -> list[Verdict | None]:
    """Verdicts on the codes of still clips and of clips played backwards."""
    still = at_least(LAQ_METRICS["still_modal_share"], laq["still_modal_share"], GOOD_STILL_SHARE)
    reversal = at_least(LAQ_METRICS["reversal_correlation"], laq["reversal_correlation"], GOOD_REVERSAL)
    changed = without_threshold(LAQ_METRICS["reversal_changed_codes"], laq["reversal_changed_codes"])
    return [_unless_trivial(still, laq), _unless_trivial(reversal, laq), changed]


def _ranking(laq: Mapping[str, Any]) -> float | None:
    """Return the metric that ranks quantizers: the probe R² of one-hot codes, or of the vectors of a continuous latent.

    None if no action was measured.
    """
    return laq["probe_r2_quantized"] if laq["probe_r2"] is None else laq["probe_r2"]


def _collapsed(laq: Mapping[str, Any]) -> int:
    """Count the collapsed slots, whose perplexity is below `collapsed_below`; 0 for a continuous latent.

    With fewer clips than codes, the slots are judged as if they had one code per clip: no perplexity can be higher.
    """
    if laq["perplexity"] is None:
        return 0
    lowest = collapsed_below(min(_codebook_size(laq), laq["clips"]))
    return sum(slot < lowest for slot in laq["perplexity"])


def _codebook_size(laq: Mapping[str, Any]) -> int:
    return len(laq["code_usage"][0])


def _collapse_word(laq: Mapping[str, Any]) -> Word:
    """Judge whether no slot collapsed; unsure if the clips are too few to tell. Good for a continuous latent."""
    if laq["perplexity"] is None or min(laq["perplexity"]) >= collapsed_below(_codebook_size(laq)):
        return "good"
    return "weak" if _collapsed(laq) and laq["clips"] >= ENOUGH_CLIPS else "unsure"


def _use_word(laq: Mapping[str, Any]) -> Word:
    """Judge whether every slot uses half of its codes; unsure if the clips are too few to tell. Good for a continuous
    latent."""
    if laq["perplexity"] is None or min(laq["perplexity"]) >= good_perplexity(_codebook_size(laq)):
        return "good"
    is_shown = _collapse_word(laq) == "weak" or shows_unused_codes(laq["clips"], _codebook_size(laq))
    return "weak" if is_shown else "unsure"


def _unless_trivial(row: Verdict | None, laq: Mapping[str, Any]) -> Verdict | None:
    """Change the verdict from good to unsure if all slots collapsed.

    Codes that never change survive transfer and stillness without describing any motion, so a good value is no merit.
    """
    is_trivial = laq["perplexity"] is not None and _collapsed(laq) == len(laq["perplexity"])
    if row is None or row.word != "good" or not is_trivial:
        return row
    return replace(row, meaning=f"{row.meaning}; meaningless if the codes collapsed", word="unsure")


def _gain_over_frame(laq: Mapping[str, Any]) -> Word:
    """Judge whether codes add to what the pixels of frame t predict of the actions.

    It is weak if both together predict them no better than their mean.
    """
    both = laq["probe_r2_pixels_and_codes"]
    return "weak" if both is not None and both <= 0 else _gain_word(laq["probe_gain"], laq["probe_gain_interval"])


def _gain_over_still(laq: Mapping[str, Any]) -> Word:
    """Judge whether codes add to what the pixels and a still clip's codes predict of the actions; good if unknown."""
    gain = laq.get("probe_gain_over_still")
    return "good" if gain is None else _gain_word(gain, laq["probe_gain_over_still_interval"])


def _gain_word(gain: float, interval: Sequence[float] | None) -> Word:
    """Judge whether `gain` is above 0.

    Unlike `surely_above_zero`, it is also unsure if the estimate lies at an edge of its interval: then a few episodes
    determine the estimate.
    """
    word = surely_above_zero(gain, interval)
    if word != "good":
        return word
    assert interval is not None
    margin = _EDGE * (interval[1] - interval[0])
    return "good" if interval[0] + margin < gain < interval[1] - margin else "unsure"
