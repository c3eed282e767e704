"""Image augmentation by random shifts, batched on the images' device.

Shapes: p images of all rows of a batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from hlrp.training.row_draws import RowDraws


def random_shift(images: Float[Tensor, "p c h w"], max_shift: int, *, draws: RowDraws) -> Float[Tensor, "p c h w"]:
    """Shift every image by its own whole-pixel offset in [-max_shift, max_shift], repeating the border.

    Args:
        images: Pixels of any range. Every row of the batch has the same number of images, which are adjacent.
        max_shift: Largest shift along each axis, in pixels; 0 returns `images` unchanged.
        draws: Random numbers of the rows of the batch.
    """
    if max_shift == 0:
        return images
    num, _, height, width = images.shape
    offsets = draws.integers(2 * num // len(draws.rows), high=2 * max_shift + 1)
    dy, dx = rearrange(offsets, "b (image two) -> two (b image)", two=2)
    padded = F.pad(images, (max_shift,) * 4, mode="replicate")
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # p c dy dx h w, a view
    return windows[torch.arange(num, device=images.device), :, dy, dx]
