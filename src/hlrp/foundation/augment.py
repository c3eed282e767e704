"""Light image augmentation, batched on the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def random_shift(
    images: Float[Tensor, "n c h w"], max_shift: int, *, generator: torch.Generator | None = None
) -> Float[Tensor, "n c h w"]:
    """Shift every image by its own whole-pixel offset in [-max_shift, max_shift], repeating the border.

    Args:
        images: Pixels of any range.
        max_shift: Largest shift along each axis, in pixels; 0 returns `images` unchanged.
        generator: Source of randomness, on the images' device.
    """
    if max_shift == 0:
        return images
    num, _, height, width = images.shape
    padded = F.pad(images, (max_shift,) * 4, mode="replicate")
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # n c dy dx h w, a view
    dy, dx = torch.randint(2 * max_shift + 1, (2, num), device=images.device, generator=generator)
    return windows[torch.arange(num, device=images.device), :, dy, dx]
