"""Tables of all metrics: key in JSON, name for readers, explanation, and threshold of a good value.

README, terminal output, model cards and HTML reports take these texts from here, so that a metric has the same name and
the same threshold everywhere. The modules of `hlrp.report.verdicts` apply the thresholds. In the texts, k is the
codebook size.
"""

from __future__ import annotations

from dataclasses import dataclass

# ---- Thresholds of a model that is good enough for the next stage. They are conventions, not measured values. ----

GOOD_PROBE_R2 = 0.5
"""Smallest good `probe_r2`: a linear map of one-hot codes explains at least half of the variance of actions."""
GOOD_PERPLEXITY_SHARE = 0.5
"""Smallest good perplexity of a code slot, as a share of the codebook size."""
COLLAPSED_SHARE = 0.25
"""Perplexity of a code slot, as a share of the codebook size, below which the slot counts as collapsed."""
LEAST_PERPLEXITY = 1.5
"""Smallest good perplexity for any codebook size. For two codes, the share above would allow a constant code."""
ENOUGH_CLIPS_PER_CODE = 1.5
"""Fewest clips, as a multiple of the codebook size, that can show that codes stay unused. With one clip per code, also
codes that are all equally frequent have a perplexity under half of the codebook size in every sixth sample."""
ENOUGH_CLIPS = 8
"""Fewest clips that can show that codes stay unused or that a slot collapsed, for any codebook size."""
GOOD_PERMUTED_RATIO = 0.3
"""Largest good `permuted_gain_ratio`: most of the gain over copying must depend on the codes of the clip."""
GOOD_TRANSFER = 0.5
"""Smallest good agreement of transferred codes, on a scale from 0 (chance) to 1 (all equal): Cohen's kappa (1960)."""
GOOD_STILL_SHARE = 0.8
"""Smallest good share of still clips that get the same code tuple."""
GOOD_STILL_CHANGE = 0.1
"""Largest good squared change predicted for still clips, relative to the squared change in real clips."""
GOOD_REVERSAL = 0.5
"""Smallest good `reversal_correlation`; see `hlrp.measure.motion.ReversalMetrics`."""
GOOD_GAIN_OVER_GUESSING = 0.1
"""Smallest good `gain_over_guessing`: 0 is the accuracy of the best constant guess, 1 is all codes right."""
GOOD_CALIBRATION = 0.1
"""Largest good calibration error: mean difference between the probability of a decoded code and its accuracy."""


def good_perplexity(codebook_size: int) -> float:
    """Smallest perplexity of a good code slot with `codebook_size` codes."""
    return max(GOOD_PERPLEXITY_SHARE * codebook_size, LEAST_PERPLEXITY)


def collapsed_below(codebook_size: int) -> float:
    """Perplexity below which a code slot with `codebook_size` codes counts as collapsed."""
    return max(COLLAPSED_SHARE * codebook_size, LEAST_PERPLEXITY)


def shows_unused_codes(clips: int, codebook_size: int) -> bool:
    """Whether `clips` are enough to show that codes of a slot stay unused: a perplexity is at most the number of
    clips."""
    return clips >= max(ENOUGH_CLIPS_PER_CODE * codebook_size, ENOUGH_CLIPS)


# ---- The table ----


@dataclass(frozen=True)
class Metric:
    """Name, meaning and threshold of one metric, as tables show them."""

    name: str
    """Name for readers; in JSON, the metric is named by its key in the tables below."""
    meaning: str
    """Explanation in a phrase."""
    wanted: str = ""
    """Threshold in words; empty for a metric that is shown for comparison only."""


PROBED = {
    "codes": "codes",
    "quantized": "code vectors",
    "vectors": "unquantized vectors",
    "frame_only": "a still clip",
    "pixels": "pixels",
    "pixels_and_codes": "pixels and codes",
}
"""Inputs of the linear probes of actions: as in the keys of `ProbeMetrics`, and in words for readers."""


def _probed(features: str) -> str:
    return f"probe R² of {PROBED[features]}"


LAQ_METRICS = {
    "probe_r2": Metric(
        _probed("codes"),
        "R² of the next actions, predicted by a linear map from one-hot codes; 1 is perfect",
        f"≥ {GOOD_PROBE_R2:g}",
    ),
    "probe_r2_quantized": Metric(_probed("quantized"), "R² of a linear map from the decoder's code vectors"),
    "probe_r2_vectors": Metric(
        _probed("vectors"), "R² of a linear map from the encoder's vectors; quantization loses the difference"
    ),
    "probe_r2_frame_only": Metric(
        _probed("frame_only"), "R² of a linear map from the codes of frame t repeated, which show no motion"
    ),
    "probe_r2_pixels": Metric(_probed("pixels"), "R² of a linear map from frame t itself, without codes"),
    "probe_r2_pixels_and_codes": Metric(
        _probed("pixels_and_codes"), "R² of a linear map from frame t and the codes together"
    ),
    "probe_r2_relative": Metric(
        "relative R² of codes",
        "R² of relative actions, each minus the first of its chunk: how the robot moves, not where it is",
    ),
    "probe_r2_relative_vectors": Metric(
        "relative R² of vectors", "R² of relative actions, predicted by a linear map from the encoder's vectors"
    ),
    "probe_gain": Metric(
        "gain over the frame",
        "R² from pixels and codes minus R² from pixels alone: what the codes add to frame t",
        "95 % interval above 0",
    ),
    "probe_gain_over_still": Metric(
        "gain over a still clip",
        "the same with the codes of a still clip on both sides: 0 for codes that depend on frame t alone",
        "95 % interval above 0",
    ),
    "copy_gain": Metric(
        "gain over copying", "how much closer the predicted frame is than frame t repeated; 1 is perfect", "> 0"
    ),
    "copy_gain_moving": Metric("gain on moving pixels", "gain over copying where something moves", "> 0"),
    "permuted_gain_ratio": Metric(
        "gain kept under permuted codes",
        "share of the gain over copying that is left when clips swap their codes; 1: codes are ignored",
        f"≤ {GOOD_PERMUTED_RATIO:g}",
    ),
    "still_change_ratio": Metric(
        "change predicted for still clips",
        "squared change predicted for clips without motion, divided by that of real clips",
        f"≤ {GOOD_STILL_CHANGE:g}",
    ),
    "transfer_consistency": Metric(
        "transferred codes",
        "share of codes that are found again after decoding them from a frame of another episode",
        "half way from chance to 1, or more",
    ),
    "transfer_r2": Metric(
        "transferred vectors, R²", "R² of the code vectors that are found again in this way; 1 is identical"
    ),
    "perplexity": Metric(
        "perplexity per slot", "effective number of codes that each slot uses, of k", "every slot ≥ k/2"
    ),
    "collapsed_slots": Metric(
        "collapsed slots", "slots that give nearly all clips the same code: perplexity under k/4", "0"
    ),
    "dead_codes": Metric("dead codes per slot", "codes that no measured clip uses"),
    "tuple_entropy_bits": Metric(
        "entropy of code tuples", "entropy of all codes of a clip together (Miller–Madow estimate), of the maximum"
    ),
    "still_modal_share": Metric(
        "still clips with one name",
        "share of clips without motion that get the most frequent codes among such clips",
        f"≥ {GOOD_STILL_SHARE:g}",
    ),
    "reversal_correlation": Metric(
        "backwards means opposite",
        "correlation of actions predicted from clips played backwards with the negated actions predicted from the same "
        "clips; only for actions that are displacements",
        f"≥ {GOOD_REVERSAL:g}",
    ),
    "reversal_changed_codes": Metric(
        "codes that change backwards", "share of codes that differ when clips are played backwards"
    ),
}  # fmt: skip
"""Metrics of a quantizer by their keys in `quality.json`; `collapsed_slots` is computed from `perplexity`."""

FOUNDATION_METRICS = {
    "decoded_accuracy": Metric(
        "decoded accuracy",
        "share of correct codes, decoded from one frame and the instruction as in a policy",
        "95 % interval above the best constant guess",
    ),
    "constant_guess_accuracy": Metric(
        "best constant guess", "share of correct codes when guessing each slot's most frequent code"
    ),
    "gain_over_guessing": Metric(
        "gain over guessing",
        "share of the way from the best constant guess to all codes correct; 0 is guessing, 1 is perfect",
        f"≥ {GOOD_GAIN_OVER_GUESSING:g}",
    ),
    "last_code_accuracy": Metric(
        "codes of the span before",
        "accuracy of repeating the true codes of the previous clip; only a reference, since a policy has no true codes",
    ),
    "teacher_forced_accuracy": Metric(
        "teacher-forced accuracy", "share of correct codes when the true codes before them are given"
    ),
    "exact_sequence_accuracy": Metric("exact sequences", "share of frames whose codes are all correct"),
    "cross_entropy_bits": Metric(
        "cost of a label",
        "cross-entropy of the true codes of a frame, in bits",
        "below the entropy of the codes",
    ),
    "calibration_error": Metric(
        "calibration error",
        "mean difference between the probability of decoded codes and the share of them that is correct",
        f"≤ {GOOD_CALIBRATION:g}",
    ),
}
"""Metrics of a foundation model by their keys in `metrics.json` under `quality`."""

LANGUAGE_METRICS = {
    "accuracy_drop": Metric(
        "worth of the instruction",
        "accuracy lost with the instruction of another task; also near 0 if the scene alone shows the task",
    ),
    "changed_share": Metric(
        "codes changed by other words", "share of frames whose decoded codes change with the instruction"
    ),
    "total_variation": Metric(
        "distance by other words",
        "total variation between each slot's probabilities under both instructions; 1 is disjoint",
    ),
}
"""Metrics of a foundation model with changed instructions, by their keys in `metrics.json` under `language`."""
