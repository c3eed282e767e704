"""Resize, crop and select frames. All stages resize with `resize`, so that they get the same pixels.

Shapes: y x pixel rows and pixel columns after resizing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Int, Num, UInt8
from torch import Tensor


def resize(frames: Num[Tensor, "*b c h w"], size: tuple[int, int], *, crop: bool = False) -> Num[Tensor, "*b c y x"]:
    """Resize frames to `size` (height, width), bilinear with antialiasing; frames of this size are returned unchanged.

    uint8 frames in [0, 255] are computed in uint8 on the CPU, as in Pillow: within 1 of 255 of the result for float
    frames in [0, 1], and ten times faster. On other devices, where torch cannot do this, they are computed in float32.

    Args:
        frames: The frames.
        size: Height and width of the result.
        crop: Cut off what does not fit the shape of the result, alike on two opposite sides, instead of stretching.
    """
    if crop:
        frames = _crop(frames, size)
    if tuple(frames.shape[-2:]) == tuple(size):
        return frames
    if frames.dtype == torch.uint8 and frames.device.type != "cpu":
        return resize(frames.float(), size).round().to(torch.uint8)
    flat = rearrange(frames, "... c h w -> (...) c h w")
    flat = F.interpolate(flat, tuple(size), mode="bilinear", antialias=True, align_corners=False)
    return flat.reshape(*frames.shape[:-2], *size)


def _crop(frames: Num[Tensor, "*b c h w"], size: tuple[int, int]) -> Num[Tensor, "*b c _ _"]:
    """The largest part in the middle of frames that has the aspect ratio of `size` (height, width)."""
    height, width = frames.shape[-2:]
    kept_height = max(min(height, round(width * size[0] / size[1])), 1)
    kept_width = max(min(width, round(height * size[1] / size[0])), 1)
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    return frames[..., top : top + kept_height, left : left + kept_width]


def take(frames: UInt8[Tensor, "f 3 h w"], index: Int[Tensor, "b t"]) -> UInt8[Tensor, "b t 3 h w"]:
    """Select `frames[index]`; `index_select` copies whole frames and is ten times faster than indexing."""
    return frames.index_select(0, index.flatten()).reshape(*index.shape, *frames.shape[1:])
