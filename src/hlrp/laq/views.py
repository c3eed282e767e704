"""Two views of a clip that share nothing but its motion.

The encoder sees one, the decoder must predict the other. What a code then can carry is what both have in common: how
things moved, rather than what they look like and exactly where they are.

Shapes: b clips, t frames, c h w a frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """How far the encoder's view of a clip is from the decoder's."""

    max_shift: float = 0.1
    """Largest shift along each axis, over the picture's side; the same for all frames of a clip."""
    max_brightness: float = 0.1
    """Largest change of brightness, over the range of a pixel."""
    max_contrast: float = 0.2
    """Largest relative change of contrast."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_shift < 0.5 or self.max_brightness < 0 or not 0 <= self.max_contrast < 1:
            raise ValueError(
                "max_shift must be in [0, 0.5), max_brightness 0 or more and max_contrast in [0, 1), got "
                f"{self.max_shift}, {self.max_brightness} and {self.max_contrast}"
            )


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
