from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from hlrp.training import step_noise
from hlrp.training.step_noise import noise_of_step


def drawn(seed: int, step: int) -> Tensor:
    with noise_of_step(seed, step, device=torch.device("cpu")):
        return torch.rand(3)


@pytest.fixture
def second_of_two() -> Iterator[None]:
    with patch.object(step_noise, "rank_and_world_size", lambda: (1, 2)):
        yield


def test_the_numbers_of_a_step_do_not_depend_on_what_was_drawn_before() -> None:
    first = drawn(1000, 7)
    torch.rand(5)
    assert torch.equal(drawn(1000, 7), first)


def test_the_random_state_is_the_same_before_and_after() -> None:
    before = torch.get_rng_state()
    drawn(1000, 7)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("seed", "step"), [(1000, 8), (1001, 7), (7, 1000)])
def test_every_seed_and_step_has_its_own_numbers(seed: int, step: int) -> None:
    assert not torch.equal(drawn(seed, step), drawn(1000, 7))


def test_a_further_process_draws_other_numbers(second_of_two: None) -> None:
    of_the_second = drawn(1000, 7)
    with patch.object(step_noise, "rank_and_world_size", lambda: (0, 2)):
        assert not torch.equal(drawn(1000, 7), of_the_second)
