from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, distributed
from torch.testing._internal.distributed.fake_pg import FakeStore

from hlrp.training.row_draws import RowDraws


def whole(step: int, batch_size: int) -> RowDraws:
    return RowDraws.of_part(step, 0, 1, batch_size=batch_size)


@pytest.fixture
def second_of_two() -> Iterator[None]:
    """This process as the second of two, whose other one is never met."""
    distributed.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    yield
    distributed.destroy_process_group()


def numbers_of(draws: RowDraws) -> list[Tensor]:
    return [draws.integers(3, high=5), draws.uniform(2, 3, stream=0), draws.normal(2, 3, stream=1)]


@pytest.mark.parametrize("parts", [2, 4])
def test_the_numbers_of_the_parts_are_those_of_the_batch(parts: int) -> None:
    found = [numbers_of(RowDraws.of_part(7, index, parts, batch_size=8)) for index in range(parts)]
    for some, all_rows in zip(zip(*found, strict=True), numbers_of(whole(7, 8)), strict=True):
        assert torch.equal(torch.cat(some), all_rows)


def test_steps_rows_and_streams_draw_different_numbers() -> None:
    draws = whole(7, 2)
    for same_step, next_step in zip(numbers_of(draws), numbers_of(whole(8, 2)), strict=True):
        assert not torch.equal(same_step, next_step)
        assert not torch.equal(same_step[0], same_step[1])
    assert not torch.equal(draws.uniform(3, stream=0), draws.uniform(3, stream=1))


def test_validation_draws_the_same_every_time_and_as_no_step_does() -> None:
    cpu = torch.device("cpu")
    first, again = (numbers_of(RowDraws.of_validation(2, device=cpu)) for _ in range(2))
    for one, other, trained in zip(first, again, numbers_of(whole(0, 2)), strict=True):
        assert torch.equal(one, other)
        assert not torch.equal(one, trained)


def test_a_process_that_knows_its_rank_alone_draws_its_part_of_the_batch(second_of_two: None) -> None:
    mine = numbers_of(RowDraws.of_process(torch.tensor(7), 4))
    expected = numbers_of(RowDraws.of_part(7, 1, 2, batch_size=8))
    assert all(torch.equal(one, other) for one, other in zip(mine, expected, strict=True))


def test_one_process_draws_the_whole_batch() -> None:
    mine = numbers_of(RowDraws.of_process(torch.tensor(7), 4))
    assert all(torch.equal(one, other) for one, other in zip(mine, numbers_of(whole(7, 4)), strict=True))


@pytest.mark.parametrize("step", [0, 1, 123_456])
def test_normal_numbers_are_standard_normal(step: int) -> None:
    noise = whole(step, 200).normal(500, stream=0)
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
    assert abs(float((noise**4).mean()) - 3) < 0.15
    neighbours = torch.corrcoef(torch.stack([noise[:, :-1].flatten(), noise[:, 1:].flatten()]))
    assert abs(float(neighbours[0, 1])) < 0.02


def test_normal_numbers_of_following_steps_are_unrelated() -> None:
    noise = torch.stack([whole(step, 1).normal(5000, stream=0)[0] for step in range(6)])
    assert float((torch.corrcoef(noise) - torch.eye(6)).abs().max()) < 0.06


def test_uniform_numbers_fill_the_unit_interval_evenly() -> None:
    numbers = whole(7, 10).uniform(1000, stream=1)
    assert float(numbers.min()) > 0
    assert float(numbers.max()) <= 1
    shares = torch.histc(numbers, bins=10, min=0, max=1) / numbers.numel()
    assert float((shares - 0.1).abs().max()) < 0.02


def test_normal_numbers_of_a_step_stay_the_same_from_version_to_version() -> None:
    expected = torch.tensor([[[-0.3039, 2.3075]], [[0.6402, 2.6768]]])
    torch.testing.assert_close(whole(3, 2).normal(1, 2, stream=0), expected, rtol=0, atol=1e-4)
