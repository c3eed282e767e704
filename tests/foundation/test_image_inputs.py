from __future__ import annotations

import pytest
import torch
from transformers import Qwen2VLImageProcessor, SmolVLMConfig, SmolVLMImageProcessor

from hlrp.foundation.augment import random_shift
from hlrp.foundation.backends.qwen3vl.images import ImageGeometry, build_pixel_values
from hlrp.foundation.backends.smolvlm.images import SquareGeometry
from hlrp.foundation.image_inputs import normalize, vlm_images
from hlrp.pixels import resize
from hlrp.training.row_draws import RowDraws


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


def test_frames_are_resized_first_and_shifted_afterwards() -> None:
    frames = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    small = vlm_images(frames, (16, 16))
    assert torch.equal(small, resize(frames, (16, 16)).flatten(0, 1))
    draws = RowDraws.of_validation(2, device=torch.device("cpu"))
    shifted = vlm_images(frames, (16, 16), max_shift=2, draws=draws)
    assert torch.equal(shifted, random_shift(small, 2, draws=draws))


def test_a_size_that_does_not_fit_the_patches_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        ImageGeometry.of(hub_processor(16, 16), (16, 20))


def smol_processor(side: int) -> SmolVLMImageProcessor:
    return SmolVLMImageProcessor(
        do_image_splitting=False,
        size={"height": side, "width": side},
        max_image_size={"longest_edge": side},
        image_mean=[0.5, 0.4, 0.3],
        image_std=[0.2, 0.3, 0.4],
    )


def smol_config(*, patch_size: int = 4, scale_factor: int = 2, image_size: int = 32) -> SmolVLMConfig:
    vision = {"image_size": image_size, "patch_size": patch_size}
    return SmolVLMConfig.from_dict({"vision_config": vision, "scale_factor": scale_factor})


def test_whole_squared_images_equal_the_smolvlm_processors() -> None:
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    processor = smol_processor(16)
    expected = processor([[image] for image in images], do_rescale=False, return_tensors="pt")
    geometry = SquareGeometry.of(processor, smol_config(), (16, 16))
    ours = normalize(images, geometry.mean, geometry.std)
    torch.testing.assert_close(ours, expected["pixel_values"][:, 0], atol=1e-5, rtol=0)
    assert bool(expected["pixel_attention_mask"].all())


def test_smolvlm_pixels_of_8_bit_images_are_the_hub_processors() -> None:
    images = torch.randint(256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    processor = smol_processor(16)
    expected = processor([[image] for image in images], return_tensors="pt")["pixel_values"][:, 0]
    geometry = SquareGeometry.of(processor, smol_config(), (16, 16))
    ours = normalize(images / 255, geometry.mean, geometry.std)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_a_border_that_fills_no_patch_is_allowed_as_in_the_largest_smolvlm() -> None:
    config = smol_config(patch_size=14, scale_factor=3, image_size=384)
    assert SquareGeometry.of(smol_processor(384), config, (384, 384)).tokens_per_image == 81


@pytest.mark.parametrize(
    ("size", "message"), [((16, 32), "square"), ((64, 64), "at most 32"), ((20, 20), "multiple of 8"), ((2, 2), "of 8")]
)
def test_a_size_that_does_not_fit_smolvlm_is_refused(size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SquareGeometry.of(smol_processor(16), smol_config(), size)
