"""Resize and crop frames, and select frames by index.

Shapes: n frames, b clips, t frames of a clip, h and w pixels before, y and x after. Pixels are uint8 RGB.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Int, UInt8
from torch import Tensor


def resize(
    frames: UInt8[Tensor, "*b 3 h w"], size: tuple[int, int], *, crop: bool = False
) -> UInt8[Tensor, "*b 3 y x"]:
    """Resize frames to `size` (height, width), bilinear with antialiasing; frames of this size are returned unchanged.

    The computation is in uint8, as in Pillow: within 1 of 255 of the float32 result, and ten times faster.

    Args:
        frames: The frames.
        size: Height and width of the result.
        crop: Cut off what does not fit the shape of the result, alike on two opposite sides, instead of stretching.
    """
    if crop:
        frames = _crop(frames, size)
    if tuple(frames.shape[-2:]) == size:
        return frames
    flat = rearrange(frames, "... c h w -> (...) c h w")
    flat = F.interpolate(flat, size, mode="bilinear", antialias=True, align_corners=False)
    return flat.reshape(*frames.shape[:-2], *size)


def _crop(frames: UInt8[Tensor, "*b 3 h w"], size: tuple[int, int]) -> UInt8[Tensor, "*b 3 _ _"]:
    """The largest part in the middle of frames that has the aspect ratio of `size` (height, width)."""
    height, width = frames.shape[-2:]
    kept_height = max(min(height, round(width * size[0] / size[1])), 1)
    kept_width = max(min(width, round(height * size[1] / size[0])), 1)
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    return frames[..., top : top + kept_height, left : left + kept_width]


def take(frames: UInt8[Tensor, "n 3 h w"], index: Int[Tensor, "b t"]) -> UInt8[Tensor, "b t 3 h w"]:
    """Select `frames[index]`; `index_select` copies whole frames and is ten times faster than indexing."""
    return frames.index_select(0, index.flatten()).reshape(*index.shape, *frames.shape[1:])
