"""Held-out metrics of predicted codes: accuracy, calibration, and the accuracy of simple guesses.

Shapes: f labelled frames, j held-out frames, z bins of confidence.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hlrp.foundation.predictions import CodePredictions
from hlrp.latents import LatentActions
from hlrp.measure.intervals import FEWEST_EPISODES, bootstrap_weights, percentile_interval

CALIBRATION_BINS = 15
"""Confidence bins of equal width in [0, 1]; 15 as in Guo et al. (arXiv:1706.04599)."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Reliability diagram of decoded codes: bin i of z holds codes of probability in (i/z, (i+1)/z]."""

    codes: list[int]
    """Number of decoded codes in each bin."""
    confidence: list[float | None]
    """Mean probability of the codes in each bin; None if the bin is empty."""
    accuracy: list[float | None]
    """Share of correct codes in each bin; None if the bin is empty."""


@dataclass(frozen=True)
class LastCodeGuess:
    """Accuracy of a guess for frame t that repeats the true codes of the previous clip, which ends at frame t."""

    frames: int
    """Held-out frames whose previous clip is labelled too; other frames do not count."""
    per_slot: list[float]
    """Share of correct codes in each slot."""

    @property
    def accuracy(self) -> float:
        """Share of correct codes over all slots."""
        return sum(self.per_slot) / len(self.per_slot)


@dataclass(frozen=True, kw_only=True)
class CodeAccuracy:
    """Metrics of one model on held-out frames. Shares lie in [0, 1]; lists have one value per slot."""

    frames: int
    """Labelled frames that were evaluated."""
    episodes: int | None
    """Episodes that the frames come from; None if unknown."""
    decoded_accuracy: float
    """Share of correct codes, decoded as at inference: each code given the model's own previous codes."""
    decoded_accuracy_interval: tuple[float, float] | None
    """95 % bootstrap interval of `decoded_accuracy` over episodes; None if episodes are unknown or fewer
    than `FEWEST_EPISODES`."""
    decoded_accuracy_per_slot: list[float]
    teacher_forced_accuracy: float
    """Share of correct codes, each given the true previous codes."""
    teacher_forced_accuracy_per_slot: list[float]
    exact_sequence_accuracy: float
    """Share of frames in which all codes are correct, decoded as at inference."""
    cross_entropy_bits: list[float]
    """Cross-entropy of the true code in bits, given the true previous codes."""
    label_entropy_bits: list[float]
    """Entropy of the held-out codes in bits: the cross-entropy of the best constant distribution of codes."""
    calibration_error: float
    """Expected calibration error of the decoded codes: mean distance of confidence and accuracy over bins."""
    reliability: Reliability
    confusion: list[list[list[int]]]
    """Number of frames by slot, true code and decoded code, shape (q, k, k)."""
    constant_guess_accuracy: float
    """Accuracy of one constant code per slot: the most frequent in the training labels, or else in these labels."""
    constant_guess_accuracy_per_slot: list[float]
    constant_guess_is_of_training: bool
    """True if the constant codes come from training labels; False if from these labels, the best constant guess."""
    gain_over_guessing: float | None
    """`decoded_accuracy` rescaled so that 0 equals `constant_guess_accuracy` and 1 is perfect. None if the constant
    guess is already perfect."""
    last_code_accuracy: float | None
    """Accuracy of repeating the true codes of the previous clip; None if it was not measured."""
    last_code_accuracy_per_slot: list[float] | None
    last_code_frames: int | None
    """Frames that `last_code_accuracy` was measured on."""

    def to_dict(self) -> dict[str, object]:
        """Metrics as plain values, for JSON."""
        values = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def code_accuracy(
    predictions: CodePredictions,
    *,
    codebook_size: int,
    training_counts: Int[Tensor, "q k"] | None = None,
    episode: Int[Tensor, " f"] | None = None,
    last_code: LastCodeGuess | None = None,
) -> CodeAccuracy:
    """Compute all held-out metrics.

    Args:
        predictions: From `predict_codes`.
        codebook_size: Codes k of a slot.
        training_counts: `code_counts` of the training labels, for the constant guess; None uses these labels.
        episode: Episode of each frame, for the bootstrap interval; None computes no interval.
        last_code: From `last_code_guess`; None leaves its metrics None.

    Raises:
        ValueError: If no frame is labelled, or `episode` has another length.
    """
    keep = predictions.counted
    if episode is not None and len(episode) != len(predictions):
        raise ValueError(f"expected the episode of each of {len(predictions)} frames, got {len(episode)}")
    if not keep.any():
        raise ValueError(f"none of {len(predictions)} frames has a label to compare with; validate on labelled frames")
    found = predictions.only_counted()
    episode = None if episode is None else episode[keep]
    right = found.decoded == found.codes
    counts = code_counts(found.codes, codebook_size)
    constant = (counts if training_counts is None else training_counts.cpu()).argmax(1)
    constant_right = (found.codes == constant).double().mean(0)
    error, reliability = calibration(found.probability, right)
    slots, teacher = right.double().mean(0), (found.teacher == found.codes).double().mean(0)
    decoded, guessed = float(slots.mean()), float(constant_right.mean())
    return CodeAccuracy(
        frames=len(found),
        episodes=None if episode is None else len(episode.unique()),
        decoded_accuracy=decoded,
        decoded_accuracy_interval=None if episode is None else accuracy_interval(right, episode),
        decoded_accuracy_per_slot=slots.tolist(),
        teacher_forced_accuracy=float(teacher.mean()),
        teacher_forced_accuracy_per_slot=teacher.tolist(),
        exact_sequence_accuracy=float(right.all(1).double().mean()),
        cross_entropy_bits=(found.nats.double().mean(0) / math.log(2)).tolist(),
        label_entropy_bits=entropy_bits(counts).tolist(),
        calibration_error=error,
        reliability=reliability,
        confusion=confusion_counts(found.codes, found.decoded, codebook_size).tolist(),
        constant_guess_accuracy=guessed,
        constant_guess_accuracy_per_slot=constant_right.tolist(),
        constant_guess_is_of_training=training_counts is not None,
        gain_over_guessing=(decoded - guessed) / (1 - guessed) if guessed < 1 else None,
        last_code_accuracy=None if last_code is None else last_code.accuracy,
        last_code_accuracy_per_slot=None if last_code is None else last_code.per_slot,
        last_code_frames=None if last_code is None else last_code.frames,
    )


def code_counts(codes: Int[Tensor, "f q"], codebook_size: int) -> Int[Tensor, "q k"]:
    """Number of frames with each code in each slot; every frame must have a label."""
    return F.one_hot(codes, codebook_size).sum(0)


def entropy_bits(counts: Int[Tensor, "q k"]) -> Float[Tensor, " q"]:
    """Entropy of the codes of each slot, in bits."""
    share = counts.double() / counts.sum(1, keepdim=True)
    return -torch.special.xlogy(share, share).sum(1) / math.log(2)


def confusion_counts(
    codes: Int[Tensor, "f q"], decoded: Int[Tensor, "f q"], codebook_size: int
) -> Int[Tensor, "q k k"]:
    """Number of frames by slot, true code and decoded code."""
    slots, k = codes.shape[1], codebook_size
    # Number each (slot, true code, decoded code), so that one bincount fills all confusion matrices.
    cell = (torch.arange(slots, device=codes.device) * k + codes) * k + decoded
    return rearrange(cell.flatten().bincount(minlength=slots * k * k), "(s t d) -> s t d", t=k, d=k)


def calibration(probability: Float[Tensor, "f q"], right: Bool[Tensor, "f q"]) -> tuple[float, Reliability]:
    """Expected calibration error (Guo et al., arXiv:1706.04599, eq. 3) over all codes, and its bins."""
    inside = (probability * CALIBRATION_BINS).ceil().long().clamp(1, CALIBRATION_BINS).flatten() - 1

    def summed(values: Tensor) -> Float[Tensor, " z"]:
        return torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add_(0, inside, values.flatten().double())

    codes, sure, true = summed(torch.ones_like(probability)), summed(probability), summed(right)
    error = float((sure - true).abs().sum() / codes.sum())

    def mean(sums: Float[Tensor, " z"]) -> list[float | None]:
        return [float(total / count) if count else None for total, count in zip(sums, codes, strict=True)]

    return error, Reliability(codes=codes.long().tolist(), confidence=mean(sure), accuracy=mean(true))


def accuracy_interval(right: Bool[Tensor, "f q"], episode: Int[Tensor, " f"]) -> tuple[float, float] | None:
    """95 % bootstrap interval of the share of correct codes; None with fewer than `FEWEST_EPISODES` episodes.

    Whole episodes are resampled, because frames of one episode are not independent.
    """
    names, row = episode.unique(return_inverse=True)
    if len(names) < FEWEST_EPISODES:
        return None
    score = right.double().mean(1)
    frames, scores = (
        values.new_zeros(len(names)).index_add_(0, row, values) for values in (torch.ones_like(score), score)
    )
    weights = bootstrap_weights(len(names))
    return percentile_interval((weights @ scores) / (weights @ frames))


def last_code_guess(
    labels: LatentActions,
    episode: Int[Tensor, " f"],
    index: Int[Tensor, " j"],
    *,
    span: int,
) -> LastCodeGuess | None:
    """Accuracy of guessing that the codes repeat those of the previous clip, which ends at the frame itself.

    The guess uses a label, which the LAQ computes from earlier frames and the frame itself. A policy sees one frame and
    no label. The result measures how much codes change from clip to clip; a model of one frame need not reach it.

    Args:
        labels: Labels of all frames, in the order of the dataset.
        episode: Episode of each frame.
        index: Places of the held-out frames in the dataset.
        span: Frames from a label's first to its last, `max(spec.frame_deltas(fps))`.

    Returns:
        Accuracy of the guess; None if the previous clip of no held-out frame is labelled.
    """
    if span < 1:
        raise ValueError(f"a label spans at least 1 frame, got {span}; pass max(spec.frame_deltas(fps))")
    codes, counted = labels.require_codes(), labels.counted
    before = (index - span).clamp_min(0)
    known = (index >= span) & (episode[before] == episode[index]) & counted[before] & counted[index]
    if not known.any():
        return None
    same = codes[before[known]] == codes[index[known]]
    return LastCodeGuess(int(known.sum()), same.double().mean(0).tolist())


def validation_log(metrics: CodeAccuracy) -> dict[str, float]:
    """Metrics by the name under which they are logged: `val/` and the field of `CodeAccuracy`."""
    slots = enumerate(metrics.teacher_forced_accuracy_per_slot)
    return {
        "val/decoded_accuracy": metrics.decoded_accuracy,
        "val/teacher_forced_accuracy": metrics.teacher_forced_accuracy,
        **{f"val/teacher_forced_accuracy_slot_{slot}": value for slot, value in slots},
        "val/exact_sequence_accuracy": metrics.exact_sequence_accuracy,
        "val/calibration_error": metrics.calibration_error,
        "val/constant_guess_accuracy": metrics.constant_guess_accuracy,
    }
