"""How often a foundation model names the right codes on unseen frames, how sure it is of them, and what guesses score.

Shapes: b batch, m labelled frames, n frames of a dataset, v held-out frames, s code slots, k codebook entries, e
episodes, q bins of confidence.
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
from hlrp.latents import NO_LABEL
from hlrp.measure.intervals import bootstrap_weights, percentile_interval

CALIBRATION_BINS = 15
"""Bins of equal width between probability 0 and 1, as in Guo et al. (arXiv:1706.04599)."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Confidence and truth of decoded codes: bin i holds probabilities in (i/q, (i+1)/q]."""

    codes: list[int]
    """Decoded codes in each bin."""
    confidence: list[float | None]
    """Mean probability in each bin; None where it is empty."""
    accuracy: list[float | None]
    """Share of them that is right."""


@dataclass(frozen=True)
class LastCodeGuess:
    """What saying the codes of the span before again scores."""

    frames: int
    """Held-out frames whose span before is labelled too; the others do not count."""
    per_slot: list[float]
    """Share of right codes in each slot."""

    @property
    def accuracy(self) -> float:
        """Over all slots."""
        return sum(self.per_slot) / len(self.per_slot)


@dataclass(frozen=True, kw_only=True)
class CodeFigures:
    """Figures of one model on held-out frames; a share is in [0, 1], a list holds one value for each slot."""

    frames: int
    """Labelled frames behind the figures."""
    episodes: int | None
    """Episodes they come from; None where nobody said."""
    decoded_accuracy: float
    """Share of codes that are right when decoded as at inference, after the model's own codes before."""
    decoded_accuracy_interval: tuple[float, float] | None
    """95 % bootstrap interval of it over episodes; None where they are not known, or there is only one."""
    decoded_accuracy_per_slot: list[float]
    teacher_forced_accuracy: float
    """The same with the true codes before given."""
    teacher_forced_accuracy_per_slot: list[float]
    exact_sequence_accuracy: float
    """Share of frames whose codes are all right, decoded as at inference."""
    cross_entropy_bits: list[float]
    """Mean -log2 of the probability of the true code, given the true codes before."""
    label_entropy_bits: list[float]
    """Entropy of the held-out codes: what the best constant distribution costs. A model below it has learnt."""
    calibration_error: float
    """Expected calibration error of the decoded codes: mean distance of confidence and accuracy over the bins."""
    reliability: Reliability
    confusion: list[list[list[int]]]
    """Frames by slot, true code and decoded code, (s, k, k)."""
    constant_guess_accuracy: float
    """What saying one code for each slot scores: the most frequent one in training, or here if that is unknown."""
    constant_guess_accuracy_per_slot: list[float]
    constant_guess_is_of_training: bool
    """Whether that code was chosen by training labels; else by these, which no constant guess can beat."""
    gain_over_guessing: float | None
    """Share of the way from `constant_guess_accuracy` to all codes right that `decoded_accuracy` has gone: 0 is
    guessing, 1 is perfect. None where guessing gets all codes right."""
    last_code_accuracy: float | None
    """What repeating the true codes of the span before scores; None where it was not measured."""
    last_code_accuracy_per_slot: list[float] | None
    last_code_frames: int | None
    """Frames behind it."""

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        values = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def code_figures(
    predictions: CodePredictions,
    *,
    codebook_size: int,
    training_counts: Int[Tensor, "s k"] | None = None,
    episode: Int[Tensor, " m"] | None = None,
    last_code: LastCodeGuess | None = None,
) -> CodeFigures:
    """Compute every figure.

    Args:
        predictions: From `predict_codes`.
        codebook_size: Codes k of a slot.
        training_counts: `code_counts` of the training labels, for the constant guess.
        episode: Episode of each frame, for the interval.
        last_code: From `last_code_guess`.

    Raises:
        ValueError: If no frame is labelled, or `episode` has another length.
    """
    keep = predictions.counted
    if episode is not None and len(episode) != len(predictions):
        raise ValueError(f"expected the episode of each of {len(predictions)} frames, got {len(episode)}")
    if not keep.any():
        raise ValueError(f"none of {len(predictions)} frames has a label to compare with; validate on labelled frames")
    found = predictions.kept(keep)
    episode = None if episode is None else episode[keep]
    right = found.decoded == found.codes
    counts = code_counts(found.codes, codebook_size)
    constant = (counts if training_counts is None else training_counts.cpu()).argmax(1)
    constant_right = (found.codes == constant).double().mean(0)
    error, reliability = calibration(found.probability, right)
    slots, teacher = right.double().mean(0), (found.teacher == found.codes).double().mean(0)
    decoded, guessed = float(slots.mean()), float(constant_right.mean())
    return CodeFigures(
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


def code_counts(codes: Int[Tensor, "m s"], codebook_size: int) -> Int[Tensor, "s k"]:
    """How often each slot holds each code; frames without a label do not count."""
    one_hot = F.one_hot(codes.clamp_min(0), codebook_size)
    return (one_hot * (codes != NO_LABEL).all(1)[:, None, None]).sum(0)


def entropy_bits(counts: Int[Tensor, "s k"]) -> Float[Tensor, " s"]:
    """Entropy of each slot's codes."""
    share = counts.double() / counts.sum(1, keepdim=True)
    return -torch.special.xlogy(share, share).sum(1) / math.log(2)


def confusion_counts(
    codes: Int[Tensor, "m s"], decoded: Int[Tensor, "m s"], codebook_size: int
) -> Int[Tensor, "s k k"]:
    """Frames by slot, true code and decoded code."""
    slots, k = codes.shape[1], codebook_size
    cell = (torch.arange(slots, device=codes.device) * k + codes) * k + decoded
    return rearrange(cell.flatten().bincount(minlength=slots * k * k), "(s t d) -> s t d", t=k, d=k)


def calibration(probability: Float[Tensor, "m s"], right: Bool[Tensor, "m s"]) -> tuple[float, Reliability]:
    """Expected calibration error (Guo et al., arXiv:1706.04599, eq. 3) over all codes, with its bins."""
    inside = (probability * CALIBRATION_BINS).ceil().long().clamp(1, CALIBRATION_BINS).flatten() - 1

    def summed(values: Tensor) -> Float[Tensor, " q"]:
        return torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add_(0, inside, values.flatten().double())

    codes, sure, true = summed(torch.ones_like(probability)), summed(probability), summed(right)
    error = float((sure - true).abs().sum() / codes.sum())

    def mean(sums: Float[Tensor, " q"]) -> list[float | None]:
        return [float(total / count) if count else None for total, count in zip(sums, codes, strict=True)]

    return error, Reliability(codes=codes.long().tolist(), confidence=mean(sure), accuracy=mean(true))


def accuracy_interval(right: Bool[Tensor, "m s"], episode: Int[Tensor, " m"]) -> tuple[float, float] | None:
    """95 % interval of the share of right codes over resampled episodes; None with fewer than two of them.

    Frames of one episode resemble each other, so episodes are drawn, not frames.
    """
    names, row = episode.unique(return_inverse=True)
    if len(names) < 2:
        return None
    score = right.double().mean(1)
    frames, scores = (
        values.new_zeros(len(names)).index_add_(0, row, values) for values in (torch.ones_like(score), score)
    )
    weights = bootstrap_weights(len(names))
    return percentile_interval((weights @ scores) / (weights @ frames))


def last_code_guess(
    codes: Int[Tensor, "n s"],
    valid: Bool[Tensor, " n"],
    episode: Int[Tensor, " n"],
    index: Int[Tensor, " v"],
    *,
    span: int,
) -> LastCodeGuess | None:
    """Score the guess that motion goes on: the codes of the label whose span ends where that of the frame begins.

    It sees labels, which need the frame itself and those before it through the LAQ; a policy has one frame and none of
    them. So it says how much codes change from span to span, and is no rival that a model of one frame must beat.

    Args:
        codes: Labels of all frames, in the order of the dataset.
        valid: Where they are whole.
        episode: Episode of each frame.
        index: Held-out frames.
        span: Frames from a label's first to its last, `max(spec.frame_deltas(fps))`.

    Returns:
        None where no held-out frame has a labelled span before it.
    """
    if span < 1:
        raise ValueError(f"a label spans at least 1 frame, got {span}; pass max(spec.frame_deltas(fps))")
    before = (index - span).clamp_min(0)
    known = (index >= span) & (episode[before] == episode[index]) & valid[before] & valid[index]
    if not known.any():
        return None
    same = codes[before[known]] == codes[index[known]]
    return LastCodeGuess(int(known.sum()), same.double().mean(0).tolist())


def validation_log(figures: CodeFigures) -> dict[str, float]:
    """Figures under their names in the log: those of `CodeFigures`, after `val/`."""
    slots = enumerate(figures.teacher_forced_accuracy_per_slot)
    return {
        "val/decoded_accuracy": figures.decoded_accuracy,
        "val/teacher_forced_accuracy": figures.teacher_forced_accuracy,
        **{f"val/teacher_forced_accuracy_slot_{slot}": value for slot, value in slots},
        "val/exact_sequence_accuracy": figures.exact_sequence_accuracy,
        "val/calibration_error": figures.calibration_error,
        "val/constant_guess_accuracy": figures.constant_guess_accuracy,
    }
