"""Metrics of predicted codes: by hand on small tables, and alike whatever the batches were."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hlrp.foundation.backends import FoundationLoss, LatentPrediction, PromptFeatures, QwenVLChatBackend
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.predictions import CodePredictions, predict_codes
from hlrp.latents import LatentActions
from hlrp.measure.code_accuracy import (
    accuracy_interval,
    calibration,
    code_accuracy,
    code_counts,
    confusion_counts,
    entropy_bits,
    last_code_guess,
)
from labelled_batch import codes_of, with_labels

K = 4


def predictions(codes: list[list[int]], decoded: list[list[int]], probability: float = 0.5) -> CodePredictions:
    """Whose teacher-forced codes are all right."""
    truth, said = torch.tensor(codes), torch.tensor(decoded)
    labels = LatentActions.of_codes(truth)
    probabilities, nats = torch.full(truth.shape, probability), torch.zeros(truth.shape)
    return CodePredictions(labels.targets(), said, probabilities, labels.targets(), nats, labels.counted)


def test_accuracies_are_shares_of_labelled_frames_only() -> None:
    found = predictions([[0, 1], [2, 3], [-1, -1]], [[0, 1], [2, 0], [1, 1]])
    metrics = code_accuracy(found, codebook_size=K)
    assert (metrics.frames, metrics.episodes, metrics.decoded_accuracy_interval) == (2, None, None)
    assert metrics.decoded_accuracy == 0.75
    assert metrics.decoded_accuracy_per_slot == [1.0, 0.5]
    assert metrics.exact_sequence_accuracy == 0.5
    assert metrics.teacher_forced_accuracy == 1.0
    assert metrics.confusion[1] == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert json.loads(json.dumps(metrics.to_dict()))["decoded_accuracy"] == 0.75


def test_scores_become_teacher_forced_codes_and_their_cross_entropy() -> None:
    logits, codes = torch.randn(3, 2, K), torch.tensor([[0, 1], [2, 3], [1, -1]])
    counted = torch.tensor([True, True, False])
    features = PromptFeatures(torch.zeros(3, 1, 1), torch.ones(3, 1, dtype=torch.bool))
    nothing = torch.zeros(())
    result = FoundationLoss(nothing, torch.zeros(3), counted, torch.zeros(2), logits, features)
    said = LatentPrediction(torch.zeros(3, 2, dtype=torch.int64), torch.full((3, 2), 0.25).log(), features)
    found = CodePredictions.joined([CodePredictions.of(result, said, LatentActions.of_codes(codes))])
    assert found.counted.tolist() == [True, True, False]
    assert torch.equal(found.teacher, logits.argmax(-1))
    metrics = code_accuracy(found, codebook_size=K)
    nats = F.cross_entropy(logits[:2].flatten(0, 1), codes[:2].flatten())
    assert sum(metrics.cross_entropy_bits) / 2 == pytest.approx(float(nats) / math.log(2), rel=1e-5)
    assert metrics.reliability.confidence[3] == pytest.approx(0.25)  # 3/15 < 0.25 <= 4/15


def test_a_model_that_is_as_often_right_as_it_says_is_calibrated() -> None:
    sure = torch.full((4, 2), 0.75)
    right = torch.tensor([[True, True], [True, True], [True, True], [False, False]])
    error, bins = calibration(sure, right)
    assert error == pytest.approx(0.0, abs=1e-7)
    assert bins.codes[11] == 8
    assert bins.accuracy[11] == 0.75
    assert bins.accuracy[0] is None
    assert calibration(torch.ones(4, 2), right)[0] == pytest.approx(0.25)
    assert calibration(torch.ones(4, 2), ~right)[0] == pytest.approx(0.75)


def test_the_calibration_error_weighs_bins_by_their_codes() -> None:
    probability = torch.tensor([[1.0], [1.0], [1.0], [0.1]])
    right = torch.tensor([[True], [True], [False], [False]])
    expected = 3 / 4 * (1 - 2 / 3) + 1 / 4 * 0.1
    assert calibration(probability, right)[0] == pytest.approx(expected)


def test_confidences_of_zero_and_of_one_have_a_bin() -> None:
    bins = calibration(torch.tensor([[0.0, 1.0]]), torch.tensor([[False, True]]))[1]
    assert bins.codes[0] == bins.codes[-1] == 1
    assert sum(bins.codes) == 2


def test_confusion_counts_every_frame_once_in_each_slot() -> None:
    codes, decoded = torch.randint(K, (50, 3)), torch.randint(K, (50, 3))
    counts = confusion_counts(codes, decoded, K)
    assert counts.shape == (3, K, K)
    assert counts.sum((1, 2)).tolist() == [50] * 3
    assert torch.equal(counts.sum(2), code_counts(codes, K))
    assert torch.equal(counts.diagonal(dim1=1, dim2=2).sum(1), (codes == decoded).sum(0))


def test_the_constant_guess_is_chosen_by_training_labels_where_there_are_any() -> None:
    found = predictions([[1], [1], [2]], [[0], [0], [0]])
    here = code_accuracy(found, codebook_size=K)
    assert (here.constant_guess_accuracy, here.constant_guess_is_of_training) == (2 / 3, False)
    trained = code_accuracy(found, codebook_size=K, training_counts=code_counts(torch.tensor([[2], [2]]), K))
    assert (trained.constant_guess_accuracy, trained.constant_guess_is_of_training) == (pytest.approx(1 / 3), True)


def test_entropy_is_in_bits() -> None:
    counts = torch.tensor([[5, 5, 5, 5], [7, 7, 0, 0], [3, 0, 0, 0]])
    torch.testing.assert_close(entropy_bits(counts), torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64))


def test_the_interval_covers_the_accuracy_and_is_that_of_episodes() -> None:
    right = torch.rand(200, 3) < torch.linspace(0.2, 0.9, 10).repeat_interleave(20)[:, None]
    episode = torch.arange(10).repeat_interleave(20)
    interval, narrow = accuracy_interval(right, episode), accuracy_interval(right, torch.arange(200))
    assert interval is not None
    assert narrow is not None
    assert interval[0] < float(right.double().mean()) < interval[1]
    assert interval[1] - interval[0] > narrow[1] - narrow[0]  # frames of an episode are alike here
    assert accuracy_interval(right, torch.zeros(200, dtype=torch.int64)) is None
    metrics = code_accuracy(
        predictions([[0], [1], [-1]], [[0], [0], [0]]), codebook_size=K, episode=torch.tensor([7, 9, 3])
    )
    assert metrics.episodes == 2
    assert metrics.decoded_accuracy_interval is None, "two episodes are too few for an interval"


def dataset() -> tuple[LatentActions, Tensor]:
    """Labels and episodes of two episodes of five frames; a clip spans two frames."""
    codes = torch.tensor([[0], [1], [0], [2], [-1], [3], [3], [3], [-1], [-1]])
    return LatentActions.of_codes(codes), torch.arange(10) // 5


def test_the_last_code_is_that_of_the_span_before_in_the_same_episode() -> None:
    labels, episode = dataset()
    guess = last_code_guess(labels, episode, torch.arange(10), span=2)
    assert guess is not None
    # 2 repeats 0, 3 differs from 1, 7 repeats 5; 4, 8 and 9 have no label; 0, 1, 5 and 6 have nothing before them.
    assert (guess.frames, guess.accuracy) == (3, pytest.approx(2 / 3))
    assert last_code_guess(labels, episode, torch.tensor([0, 1, 5, 6]), span=2) is None
    with pytest.raises(ValueError, match="at least 1 frame, got 0"):
        last_code_guess(labels, episode, torch.arange(10), span=0)


def test_the_last_code_stands_among_the_figures() -> None:
    labels, episode = dataset()
    guess = last_code_guess(labels, episode, torch.tensor([2, 3]), span=2)
    found = predictions([[0], [2]], [[0], [2]])
    metrics = code_accuracy(found, codebook_size=K, last_code=guess)
    assert (metrics.last_code_accuracy, metrics.last_code_frames) == (0.5, 2)
    assert code_accuracy(found, codebook_size=K).last_code_accuracy is None


def test_figures_do_not_depend_on_how_frames_fall_into_batches(
    backend: QwenVLChatBackend, batch: FoundationBatch
) -> None:
    labelled = with_labels(batch, valid=torch.tensor([True, False, True]))
    parts = [
        FoundationBatch(batch.images[:1], batch.instructions[:1], LatentActions.of_codes(codes_of(batch)[:1])),
        FoundationBatch(batch.images[2:], batch.instructions[2:], LatentActions.of_codes(codes_of(batch)[2:])),
    ]
    backend.train()
    whole, split = (
        code_accuracy(predict_codes(backend, batches), codebook_size=8).to_dict() for batches in ([labelled], parts)
    )
    assert backend.training
    assert whole["frames"] == split["frames"] == 2
    assert whole["confusion"] == split["confusion"]
    assert whole["cross_entropy_bits"] == pytest.approx(split["cross_entropy_bits"], rel=1e-4)
    nats = backend.eval().loss(labelled).loss.detach()
    bits = whole["cross_entropy_bits"]
    assert isinstance(bits, list)
    assert sum(bits) / 4 * math.log(2) == pytest.approx(float(nats), rel=1e-5)


def test_frames_without_labels_episodes_or_batches_are_refused(backend: QwenVLChatBackend) -> None:
    nothing = predictions([[-1]], [[0]])
    with pytest.raises(ValueError, match="none of 1 frames has a label"):
        code_accuracy(nothing, codebook_size=K)
    with pytest.raises(ValueError, match="the episode of each of 1 frames, got 2"):
        code_accuracy(nothing, codebook_size=K, episode=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="at least one batch"):
        predict_codes(backend, [])
