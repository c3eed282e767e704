"""Light image augmentation, batched on the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def random_shift(
    images: Float[Tensor, "n c h w"], max_shift: int, *, draw: Int[Tensor, ""]
) -> Float[Tensor, "n c h w"]:
    """Shift every image by its own whole-pixel offset in [-max_shift, max_shift], repeating the border.

    Offsets are a function of `draw` and the image's place in the batch, not of a random state: a run that is resumed
    draws what it would have drawn, whatever its host did to the global generators in between.

    Args:
        images: Pixels of any range.
        max_shift: Largest shift along each axis, in pixels; 0 returns `images` unchanged.
        draw: Number of the draw, on the images' device, such as the training step.
    """
    if max_shift == 0:
        return images
    num, _, height, width = images.shape
    padded = F.pad(images, (max_shift,) * 4, mode="replicate")
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # n c dy dx h w, a view
    place = torch.arange(num, device=images.device)
    dy, dx = _scramble(torch.stack([2 * place, 2 * place + 1]) + draw * 2 * num) % (2 * max_shift + 1)
    return windows[place, :, dy, dx]


def _scramble(numbers: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Spread consecutive numbers over [0, 2^31), two rounds of multiply and fold."""
    for factor in (0x45D9F3B, 0x119DE1F3):
        numbers = ((numbers ^ (numbers >> 16)) * factor) & 0x7FFFFFFF
    return numbers ^ (numbers >> 16)
