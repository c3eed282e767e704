"""Whether the instruction matters: a model that must read it, one that need not, and one that cannot tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from hlrp.foundation.backends import QwenVLChatBackend
from hlrp.foundation.batch import FoundationBatch
from hlrp.latents import LatentActions
from hlrp.measure.language import language_metrics, language_sensitivity, swapped_instructions
from labelled_batch import codes_of, with_labels

Make = Callable[..., QwenVLChatBackend]
LEFT, RIGHT = "Push the block to the left", "Push the block to the right"


def two_by_two(codes: list[list[int]]) -> FoundationBatch:
    """Two images, each under two instructions."""
    first, second = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return FoundationBatch(
        torch.stack([first, first, second, second]), [LEFT, RIGHT] * 2, LatentActions.of_codes(torch.tensor(codes))
    )


def learn(backend: QwenVLChatBackend, batch: FoundationBatch, steps: int) -> QwenVLChatBackend:
    optimizer = torch.optim.AdamW(backend.train().parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        backend.loss(batch).loss.backward()
        optimizer.step()
    return backend


def test_two_instructions_for_the_same_image_are_learnt_and_each_changes_the_codes(make_backend: Make) -> None:
    one, other = [1, 2, 3, 4], [5, 6, 7, 0]
    batch = two_by_two([one, other, one, other])
    assert torch.equal(batch.images[0], batch.images[1])
    backend = learn(make_backend(scale=3), batch, 40)
    assert backend.predict(batch).codes.tolist() == [one, other, one, other]
    metrics = language_sensitivity(backend, batch, [RIGHT, LEFT] * 2)
    assert backend.training  # left as it was
    assert (metrics.accuracy, metrics.swapped_accuracy, metrics.accuracy_drop) == (1.0, 0.0, 1.0)
    assert metrics.changed_share == 1.0
    assert metrics.changed_codes == [1.0] * 4
    assert metrics.total_variation is not None
    assert metrics.total_variation[0] > 0.9


def test_a_model_whose_codes_follow_the_image_alone_loses_nothing_under_other_words(make_backend: Make) -> None:
    one, other = [1, 2, 3, 4], [5, 6, 7, 0]
    batch = two_by_two([one, one, other, other])
    metrics = language_sensitivity(learn(make_backend(scale=3), batch, 40), batch, [RIGHT, LEFT] * 2)
    assert (metrics.accuracy, metrics.accuracy_drop, metrics.changed_share) == (1.0, 0.0, 0.0)
    assert metrics.total_variation is not None
    assert max(metrics.total_variation) < 0.1


def test_an_untrained_model_loses_next_to_nothing(make_backend: Make) -> None:
    codes = torch.randint(8, (4, 4), generator=torch.Generator().manual_seed(2)).tolist()
    metrics = language_sensitivity(make_backend(scale=1), two_by_two(codes), [RIGHT, LEFT] * 2)
    assert metrics.accuracy_drop == pytest.approx(0, abs=1 / 16)  # one code of the sixteen
    assert metrics.total_variation is not None
    assert max(metrics.total_variation) < 0.01


def test_batches_count_by_their_frames_and_labels_alone_decide_accuracy(
    shared_backend: QwenVLChatBackend, batch: FoundationBatch
) -> None:
    others = swapped_instructions(batch.instructions)
    whole = language_metrics(shared_backend, [batch], others)
    assert batch.labels is not None
    parts = [
        FoundationBatch(batch.images[rows], batch.instructions[rows], batch.labels.rows(torch.arange(3)[rows]))
        for rows in (slice(0, 2), slice(2, 3))
    ]
    joined = language_metrics(shared_backend, parts, others)
    assert joined.frames == whole.frames == 3
    assert joined.changed_share == whole.changed_share
    assert joined.accuracy == whole.accuracy
    assert joined.total_variation == pytest.approx(whole.total_variation, abs=1e-5)
    unlabelled = language_metrics(shared_backend, [replace(batch, labels=None)], others)
    assert (unlabelled.accuracy, unlabelled.swapped_accuracy, unlabelled.accuracy_drop) == (None, None, None)
    assert unlabelled.changed_share == whole.changed_share
    one = language_metrics(shared_backend, [with_labels(batch, valid=torch.tensor([True, False, False]))], others)
    assert one.accuracy == float((shared_backend.predict(batch).codes[0] == codes_of(batch)[0]).double().mean())


def test_total_variation_is_a_distance_of_distributions(
    shared_backend: QwenVLChatBackend, batch: FoundationBatch
) -> None:
    metrics = language_sensitivity(shared_backend, batch, [LEFT] * 3)
    assert metrics.total_variation is not None
    assert all(0 < distance <= 1 for distance in metrics.total_variation)
    assert metrics.to_dict()["frames"] == 3


def test_every_instruction_is_swapped_for_another_and_each_is_used_once() -> None:
    for count in range(2, 8):
        names = [f"task {i}" for i in range(count)]
        for seed in range(5):
            others = swapped_instructions(names * 2, seed=seed)
            assert set(others) == set(others.values()) == set(names)
            assert all(own != other for own, other in others.items())
    assert swapped_instructions(names, seed=1) == swapped_instructions(names[::-1], seed=1)
    assert len({tuple(swapped_instructions(names, seed=seed).items()) for seed in range(5)}) > 1


def test_a_dataset_of_one_instruction_has_a_reason_instead_of_figures(
    shared_backend: QwenVLChatBackend, batch: FoundationBatch
) -> None:
    metrics = language_metrics(shared_backend, [batch], swapped_instructions([LEFT] * 3))
    assert metrics.reason == "every frame has the same instruction, so there is no other one to give"
    assert (metrics.changed_share, metrics.total_variation, metrics.accuracy_drop) == (None, None, None)


def test_an_instruction_that_stays_is_unknown_or_missing_is_refused(
    shared_backend: QwenVLChatBackend, batch: FoundationBatch
) -> None:
    with pytest.raises(ValueError, match="a frame would keep its instruction 'Open a drawer'"):
        language_sensitivity(shared_backend, batch, ["Open a drawer"] * 3)
    with pytest.raises(ValueError, match="no other instruction for 'Open a drawer'"):
        language_metrics(shared_backend, [batch], {LEFT: RIGHT})
    with pytest.raises(ValueError, match="3 samples came with 2 instructions"):
        language_sensitivity(shared_backend, batch, [LEFT, RIGHT])
    with pytest.raises(ValueError, match="at least one batch"):
        language_metrics(shared_backend, [], {LEFT: RIGHT})
