"""Augmentation of the encoder's input: the encoder gets an altered view of a clip, the decoder predicts the original.

Both views share the motion, but not brightness, contrast and exact position. Codes that only copy the appearance of the
next frame do not help the decoder, so that codes must describe motion.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from hlrp.laq.objective.config import ViewConfig


def altered_view(
    frames: Float[Tensor, "b t m c h w"], draws: Float[Tensor, "b 4"], config: ViewConfig
) -> Float[Tensor, "b t m c h w"]:
    """Change the position, brightness and contrast of every clip; all its frames and cameras are changed alike.

    Args:
        frames: Clips, float32 in [0, 1]; the result may go slightly beyond this range.
        draws: Contrast, brightness, shift along x and y, in [-1, 1], as fractions of the largest changes.
        config: Largest changes.
    """
    _, t, m, *_ = frames.shape
    contrast = rearrange(1 + config.max_contrast * draws[:, 0], "b -> b 1 1 1 1 1")
    brightness = rearrange(config.max_brightness * draws[:, 1], "b -> b 1 1 1 1 1")
    moved = shift(rearrange(frames, "b t m c h w -> b (t m c) h w"), config.max_shift * draws[:, 2:])
    return (rearrange(moved, "b (t m c) h w -> b t m c h w", t=t, m=m) - 0.5) * contrast + 0.5 + brightness


def shift(images: Float[Tensor, "b c h w"], by: Float[Tensor, "b 2"]) -> Float[Tensor, "b c h w"]:
    """Move images by (x, y), as fractions of width and height, with bilinear interpolation; the border is repeated."""
    identity = torch.eye(2, 3, device=images.device, dtype=images.dtype).expand(len(images), -1, -1)
    theta = torch.cat([identity[:, :, :2], 2 * by[:, :, None]], dim=2)  # 2: grid coordinates run from -1 to 1
    with torch.autocast(images.device.type, enabled=False):  # bfloat16 would round positions to half a pixel
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
