"""Turn camera images into a vision tower's `pixel_values`, with batched tensor operations on the images' device.

The result equals that of the image processor in transformers for the same target size.

Shapes: n images, c channels, h w pixels, r patches of all images, p numbers in one patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Qwen2VLImageProcessor, SmolVLMConfig, SmolVLMImageProcessor, SmolVLMImageProcessorPil
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig


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

    def grid(self, num_images: int) -> Int[Tensor, "n 3"]:
        """`image_grid_thw` of `num_images` images of this size; on the CPU, where the vision tower reads it."""
        return torch.tensor([self.grid_thw]).expand(num_images, 3)


SmolImageProcessor = SmolVLMImageProcessor | SmolVLMImageProcessorPil
"""Image processors of a SmolVLM. transformers loads the PIL one if a model asks for Lanczos, which needs PIL."""


@dataclass(frozen=True, kw_only=True)
class SquareGeometry:
    """Target size, patch layout and colour statistics of a SmolVLM's vision tower, for square images."""

    side: int
    """Target height and width, in pixels."""
    patch_size: int
    """Side of one square patch, in pixels; a remainder at the right and lower border is cut off."""
    scale_factor: int
    """Patches per side of a square block that is merged into one language-model token."""
    mean: tuple[float, ...]
    """Colour mean per channel, for pixels in [0, 1]."""
    std: tuple[float, ...]
    """Colour standard deviation per channel, for pixels in [0, 1]."""

    def __post_init__(self) -> None:
        patches = self.side // self.patch_size
        if patches < 1 or patches % self.scale_factor:
            raise ValueError(
                f"image_size must hold a multiple of {self.scale_factor} patches of {self.patch_size} pixels per side, "
                f"got {self.side}; use a multiple of {self.patch_size * self.scale_factor}"
            )

    @classmethod
    def of(cls, processor: SmolImageProcessor, config: SmolVLMConfig, image_size: tuple[int, int]) -> SquareGeometry:
        """Patch layout of the vision tower in `config` and colour statistics of `processor`, at `image_size`.

        Raises:
            ValueError: If `image_size` (height, width) is not square, exceeds the tower's image size, or does not
                contain a whole number of tokens.
        """
        vision = config.vision_config
        assert isinstance(vision, SmolVLMVisionConfig)
        largest, patch_size = vision.image_size, vision.patch_size
        assert isinstance(largest, int)
        assert isinstance(patch_size, int)
        height, width = image_size
        if height != width or height > largest:
            raise ValueError(
                f"image_size must be square and at most {largest} pixels a side for this SmolVLM, "
                f"got {height} x {width}"
            )
        return cls(
            side=height,
            patch_size=patch_size,
            scale_factor=config.scale_factor,
            mean=tuple(processor.image_mean),
            std=tuple(processor.image_std),
        )

    @property
    def tokens_per_image(self) -> int:
        """Language-model tokens of one image."""
        return (self.side // self.patch_size // self.scale_factor) ** 2


def resize_and_normalize(
    images: Float[Tensor, "n c h w"], size: tuple[int, int], *, mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "n c height width"]:
    """Resize images to `size` (height, width), subtract `mean` and divide by `std`.

    Resizing is bicubic with antialiasing, as in the tensor-based image processors of transformers.

    Args:
        images: RGB, float in [0, 1], any size.
        size: Target height and width, in pixels.
        mean: Colour mean per channel.
        std: Colour standard deviation per channel.
    """
    if images.shape[-2:] != size:
        images = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
        images = images.clamp(0, 1)  # bicubic resizing overshoots [0, 1]; 8-bit pipelines clip too
    shift, scale = images.new_tensor([mean, std])[:, :, None, None]
    return (images - shift) / scale


def build_pixel_values(images: Float[Tensor, "n c h w"], geometry: ImageGeometry) -> Float[Tensor, "r p"]:
    """Resize and normalize images, and cut them into the patches of a Qwen vision tower.

    Args:
        images: RGB, float in [0, 1], any size.
        geometry: The vision tower's layout.

    Returns:
        One row per patch, in the order of Qwen's tower: blocks of merged patches row by row, and row by row
        inside a block.
    """
    size = (geometry.height, geometry.width)
    images = resize_and_normalize(images, size, mean=geometry.mean, std=geometry.std)
    merge, patch = geometry.merge_size, geometry.patch_size
    patches = rearrange(
        images,
        "n c (gh mh ph) (gw mw pw) -> (n gh gw mh mw) c ph pw",
        mh=merge,
        mw=merge,
        ph=patch,
        pw=patch,
    )
    return repeat(patches, "r c ph pw -> r (c t ph pw)", t=geometry.temporal_patch_size)
