from __future__ import annotations

import torch

from hlrp.foundation.augment import random_shift
from hlrp.training.row_draws import RowDraws


def draws(step: int, num_rows: int) -> RowDraws:
    return RowDraws.of_part(step, 0, 1, batch_size=num_rows)


def test_every_image_is_shifted_as_a_whole_by_its_own_offset() -> None:
    column = torch.arange(8.0).expand(8, 8)
    images = torch.stack([column, column.T])[None].repeat(32, 1, 1, 1)  # channel 0 is x, channel 1 is y
    shifted = random_shift(images, 2, draws=draws(0, 32))
    inside = shifted[:, :, 2:-2, 2:-2] - images[:, :, 2:-2, 2:-2]
    offsets = inside[:, :, :1, :1]
    assert torch.equal(inside, offsets.expand_as(inside))
    assert set(offsets.flatten().tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}


def test_no_shift_returns_the_images_themselves() -> None:
    images = torch.rand(2, 3, 4, 4)
    assert random_shift(images, 0, draws=draws(0, 2)) is images


def test_offsets_follow_from_the_draw_alone() -> None:
    images = torch.rand(16, 3, 8, 8)
    first, again, next_one = (random_shift(images, 2, draws=draws(number, 16)) for number in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, next_one)


def test_all_offsets_are_about_equally_frequent() -> None:
    columns = torch.arange(8.0).expand(1000, 1, 8, 8)
    moved = torch.cat([random_shift(columns, 2, draws=draws(number, 1000)) for number in range(5)])[:, 0, 4, 4] - 4
    assert (torch.stack([(moved == by).double().mean() for by in range(-2, 3)]) - 0.2).abs().max() < 0.03


def test_the_offsets_of_a_part_are_those_of_its_rows_in_the_whole_batch() -> None:
    images = torch.rand(8, 3, 8, 8)  # two cameras of four rows
    whole = random_shift(images, 2, draws=draws(3, 4))
    parts = [RowDraws.of_part(3, index, 2, batch_size=4) for index in range(2)]
    shifted = [random_shift(some, 2, draws=part) for some, part in zip(images.chunk(2), parts, strict=True)]
    assert torch.equal(torch.cat(shifted), whole)


def test_the_offsets_of_a_step_stay_the_same_from_version_to_version() -> None:
    column = torch.arange(8.0).expand(4, 1, 8, 8)
    moved = random_shift(column, 2, draws=draws(5, 4))[:, 0, 4, 4] - 4
    assert moved.tolist() == [2.0, 1.0, 0.0, -1.0]
