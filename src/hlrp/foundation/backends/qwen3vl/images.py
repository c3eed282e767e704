"""Image input of a Qwen vision tower.

Shapes: i images, p patches of all images, g numbers in one patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Qwen2VLImageProcessor

from hlrp.foundation.image_inputs import normalize


@dataclass(frozen=True, kw_only=True)
class ImageGeometry:
    """Target size, patch layout and colour statistics of a Qwen vision tower."""

    height: int
    """Target height, in pixels."""
    width: int
    """Target width, in pixels."""
    patch_size: int
    """Side of one square patch, in pixels."""
    temporal_patch_size: int
    """Frames of one patch; a still image is repeated this many times."""
    merge_size: int
    """Patches per side of a square block that is merged into one language-model token."""
    mean: tuple[float, ...]
    """Colour mean per channel, for pixels in [0, 1]."""
    std: tuple[float, ...]
    """Colour standard deviation per channel, for pixels in [0, 1]."""

    def __post_init__(self) -> None:
        factor = self.patch_size * self.merge_size
        if self.height < factor or self.width < factor or self.height % factor or self.width % factor:
            raise ValueError(
                f"image_size must be multiples of {factor} (patch_size {self.patch_size} x merge_size "
                f"{self.merge_size}), got {self.height} x {self.width}"
            )

    @classmethod
    def of(cls, processor: Qwen2VLImageProcessor, image_size: tuple[int, int]) -> ImageGeometry:
        """Patch layout and colour statistics of `processor`, for images of `image_size` (height, width) pixels."""
        return cls(
            height=image_size[0],
            width=image_size[1],
            patch_size=processor.patch_size,
            temporal_patch_size=processor.temporal_patch_size,
            merge_size=processor.merge_size,
            mean=tuple(processor.image_mean),
            std=tuple(processor.image_std),
        )

    @property
    def grid_thw(self) -> tuple[int, int, int]:
        """Patches of one image along time, height and width."""
        return (1, self.height // self.patch_size, self.width // self.patch_size)

    @property
    def tokens_per_image(self) -> int:
        """Language-model tokens of one image."""
        _, rows, columns = self.grid_thw
        return rows * columns // self.merge_size**2

    def grid(self, num_images: int) -> Int[Tensor, "i 3"]:
        """`image_grid_thw` of `num_images` images of this size; on the CPU, where the vision tower reads it."""
        return torch.tensor([self.grid_thw]).expand(num_images, 3)


def build_pixel_values(images: Float[Tensor, "i c h w"], geometry: ImageGeometry) -> Float[Tensor, "p g"]:
    """Normalize images, and cut them into the patches of a Qwen vision tower.

    Args:
        images: RGB, float in [0, 1], of the size in `geometry`.
        geometry: The vision tower's layout.

    Returns:
        One row per patch, in the order of Qwen's tower: blocks of merged patches row by row, and row by row
        inside a block.
    """
    assert images.shape[-2:] == (geometry.height, geometry.width), "resized by vlm_images"
    merge, patch = geometry.merge_size, geometry.patch_size
    patches = rearrange(
        normalize(images, geometry.mean, geometry.std),
        "i c (rows mh ph) (columns mw pw) -> (i rows columns mh mw) c ph pw",
        mh=merge,
        mw=merge,
        ph=patch,
        pw=patch,
    )
    return repeat(patches, "p c ph pw -> p (c frames ph pw)", frames=geometry.temporal_patch_size)
