"""Two views of a clip that share nothing but its motion.

The encoder sees one, the decoder must predict the other. What a code then can carry is what both have in common: how
things moved, rather than what they look like and exactly where they are.

Shapes: b clips, t frames, c h w a frame.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from hlrp.laq.objective.config import ViewConfig


def altered_view(
    frames: Float[Tensor, "b t c h w"], draws: Float[Tensor, "b 4"], config: ViewConfig
) -> Float[Tensor, "b t c h w"]:
    """Shift, brighten and contrast every clip, all its frames alike; pixels in about [0, 1].

    Args:
        frames: Clips.
        draws: Contrast, brightness, shift along x and y, in [-1, 1] of what `config` allows.
        config: Largest changes.
    """
    t = frames.shape[1]
    contrast = 1 + config.max_contrast * draws[:, 0, None, None, None, None]
    brightness = config.max_brightness * draws[:, 1, None, None, None, None]
    moved = shift(rearrange(frames, "b t c h w -> b (t c) h w"), config.max_shift * draws[:, 2:])
    return (rearrange(moved, "b (t c) h w -> b t c h w", t=t) - 0.5) * contrast + 0.5 + brightness


def shift(images: Float[Tensor, "b c h w"], by: Float[Tensor, "b 2"]) -> Float[Tensor, "b c h w"]:
    """Move images by (x, y), over their sides, repeating the border; between pixels bilinearly."""
    identity = torch.eye(2, 3, device=images.device, dtype=images.dtype).expand(len(images), -1, -1)
    theta = torch.cat([identity[:, :, :2], 2 * by[:, :, None]], dim=2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
