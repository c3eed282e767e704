from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers import Qwen2VLImageProcessor
from transformers.image_utils import SizeDict

from hlrp.foundation.image_inputs import ImageGeometry, build_pixel_values


def hub_processor(height: int, width: int) -> Qwen2VLImageProcessor:
    return Qwen2VLImageProcessor(
        patch_size=4,
        merge_size=2,
        temporal_patch_size=2,
        min_pixels=height * width,
        max_pixels=height * width,
    )


def test_pixels_equal_the_hub_processor_at_the_target_size() -> None:
    images = torch.randint(256, (3, 3, 16, 24), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    processor = hub_processor(16, 24)
    expected = processor(list(images), return_tensors="pt")
    geometry = ImageGeometry.of(processor, (16, 24))
    torch.testing.assert_close(build_pixel_values(images / 255, geometry), expected["pixel_values"], atol=1e-5, rtol=0)
    assert torch.equal(geometry.grid(3), expected["image_grid_thw"])
    assert geometry.tokens_per_image == 6


@pytest.mark.parametrize("source", [(32, 32), (11, 13)])
def test_resized_pixels_equal_the_hub_processor_up_to_its_8_bit_rounding(source: tuple[int, int]) -> None:
    coarse = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    images = (F.interpolate(coarse, source, mode="bilinear") * 255).to(torch.uint8)
    processor = hub_processor(16, 16)
    geometry = ImageGeometry.of(processor, (16, 16))
    resized = processor.resize(images, size=SizeDict(height=16, width=16), resample=processor.resample)
    expected = processor(list(resized), return_tensors="pt")["pixel_values"]
    two_levels = 2 / 255 / min(geometry.std)  # the hub rounds after each axis
    torch.testing.assert_close(build_pixel_values(images / 255, geometry), expected, atol=two_levels, rtol=0)


def test_a_size_that_does_not_fit_the_patches_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        ImageGeometry.of(hub_processor(16, 16), (16, 20))
