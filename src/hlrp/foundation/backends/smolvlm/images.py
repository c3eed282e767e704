"""Image input of a SmolVLM's vision tower."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import SmolVLMConfig, SmolVLMImageProcessor, SmolVLMImageProcessorPil
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig

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
