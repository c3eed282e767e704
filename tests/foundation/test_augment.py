from __future__ import annotations

import torch

from hlrp.foundation.augment import random_shift


def test_every_image_is_shifted_as_a_whole_by_its_own_offset() -> None:
    column = torch.arange(8.0).expand(8, 8)
    images = torch.stack([column, column.T])[None].repeat(32, 1, 1, 1)  # channel 0 is x, channel 1 is y
    shifted = random_shift(images, 2, generator=torch.Generator().manual_seed(0))
    inside = shifted[:, :, 2:-2, 2:-2] - images[:, :, 2:-2, 2:-2]
    offsets = inside[:, :, :1, :1]
    assert torch.equal(inside, offsets.expand_as(inside))
    assert set(offsets.flatten().tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}


def test_no_shift_returns_the_images_themselves() -> None:
    images = torch.rand(2, 3, 4, 4)
    assert random_shift(images, 0) is images
