"""Resize frames and select frames by index. All stages resize with `resize`, so that they get the same pixels.

Shapes: y x pixel rows and pixel columns after resizing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Int, Num, UInt8
from torch import Tensor


def resize(frames: Num[Tensor, "*b c h w"], size: tuple[int, int]) -> Num[Tensor, "*b c y x"]:
    """Resize frames to `size` (height, width), bilinear with antialiasing; frames of this size are returned unchanged.

    uint8 frames in [0, 255] are computed in uint8 on the CPU, as in Pillow: within 1 of 255 of the result for float
    frames in [0, 1], and ten times faster. On other devices, where torch cannot do this, they are computed in float32.
    """
    if tuple(frames.shape[-2:]) == tuple(size):
        return frames
    if frames.dtype == torch.uint8 and frames.device.type != "cpu":
        return resize(frames.float(), size).round().to(torch.uint8)
    flat = rearrange(frames, "... c h w -> (...) c h w")
    flat = F.interpolate(flat, tuple(size), mode="bilinear", antialias=True, align_corners=False)
    return flat.reshape(*frames.shape[:-2], *size)


def take(frames: UInt8[Tensor, "f 3 h w"], index: Int[Tensor, "b t"]) -> UInt8[Tensor, "b t 3 h w"]:
    """Select `frames[index]`; `index_select` copies whole frames and is ten times faster than indexing."""
    return frames.index_select(0, index.flatten()).reshape(*index.shape, *frames.shape[1:])
