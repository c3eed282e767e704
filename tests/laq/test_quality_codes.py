"""Use of codes, on codes made for the purpose."""

from __future__ import annotations

import math

import pytest
import torch

from hlrp.measure.code_usage import (
    agreement,
    chance_agreement,
    code_usage,
    modal_share,
    most_frequent,
    tuple_entropy_bits,
)

K = 4


def test_usage_perplexity_and_dead_codes_describe_each_slot() -> None:
    codes = torch.stack([torch.arange(8) % 4, torch.arange(8) % 2], dim=1)[:, None]  # four codes, and two of four
    card = code_usage(codes, K)
    assert card.perplexity == pytest.approx([4, 2])
    assert card.dead_codes == [0, 2]
    assert card.code_usage is not None
    assert card.code_usage[1] == pytest.approx([0.5, 0.5, 0, 0])
    assert all(math.isclose(sum(shares), 1) for shares in card.code_usage)


def test_slots_of_all_transitions_are_pooled_and_tuples_are_whole_clips() -> None:
    card = code_usage(torch.tensor([[[0, 1], [2, 1]]]), K)  # slots 0 and 1 of two transitions
    assert card.perplexity == pytest.approx([2, 1])
    assert card.distinct_tuples == 1


def test_slots_that_repeat_each_other_say_no_more_together_than_one() -> None:
    codes = torch.randint(K, (4000, 1, 1))
    repeated, fresh = code_usage(codes.expand(-1, 1, 3), K), code_usage(torch.randint(K, (4000, 1, 3)), K)
    assert repeated.tuple_entropy_bits == pytest.approx(2, abs=0.02)
    assert fresh.tuple_entropy_bits == pytest.approx(6, abs=0.05)
    assert repeated.tuple_entropy_bits_max == fresh.tuple_entropy_bits_max == 6
    assert repeated.distinct_tuples == K


def test_the_correction_for_few_clips_comes_closer_to_the_truth() -> None:
    tuples = torch.randint(16, (60, 1))
    share = tuples.unique(return_counts=True)[1] / 60
    plain = float(-(share * share.log2()).sum())
    assert plain < tuple_entropy_bits(tuples)
    assert abs(tuple_entropy_bits(tuples) - 4) < abs(plain - 4)


def test_the_entropy_is_zero_for_one_tuple_and_never_more_than_clips_can_show() -> None:
    assert tuple_entropy_bits(torch.zeros(9, 2, dtype=torch.int64)) == 0
    assert tuple_entropy_bits(torch.arange(8)[:, None]) == 3
    assert code_usage(torch.randint(K, (8, 1, 5)), K).tuple_entropy_bits_max == 3


def test_the_most_frequent_tuples_come_first() -> None:
    tuples = torch.tensor([[1, 2], [0, 0], [1, 2], [1, 2], [0, 0], [3, 3]])
    assert most_frequent(tuples, 2).tolist() == [[1, 2], [0, 0]]
    assert modal_share(tuples) == 0.5


def test_codes_paired_at_random_agree_by_chance() -> None:
    codes = torch.randint(K, (5000, 1, 2)).clamp(max=2)  # uneven: code 2 is twice as frequent
    other = codes[torch.randperm(len(codes))]
    assert agreement(codes, other) == pytest.approx(chance_agreement(codes, other, K), abs=0.02)
    assert chance_agreement(codes, other, K) == pytest.approx(2 / 16 + 1 / 4, abs=0.02)
    assert agreement(codes, codes) == 1
