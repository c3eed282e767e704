"""Scene cuts of films: where one frame does not follow from the one before it.

A cut looks like motion to a quantizer, and is none. Two tests must agree before a frame counts as the first of a new
scene, so that fast motion does not:

- It differs from the frame before far more than the frames around it differ from theirs. Motion lasts.
- Most of its blocks are found nowhere near their place in the frame before. What moves is found again, moved.

Both look at frames reduced to a few pixels. A cut between two similar pictures, and a slow fade, go unnoticed.

Shapes: n frames, e films, c cuts, m pairs of frames, h and w pixels of a frame, s the side of a reduced frame in
pixels, g blocks along a side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from hlrp.data.frames import FrameSource

_SIDE = 32
"""Pixels s along a side of a reduced frame."""
_BLOCKS = 4
"""Blocks g along a side."""
_REACH = 8
"""Pixels, a quarter of the picture, over which a block is looked for in the frame before."""
_TOLERANCE = 12.0
"""Levels of 255 by which a block may differ from what it is taken for: noise, and motion by a part of a pixel."""
_NEW_SHARE = 0.6
"""Share of blocks that must be new. Whole pictures moved by a fifth of their width leave at most 0.5 of them new, and
pairs of different photographs at least 0.75."""
_OUTLIER = 2.0
"""How many times the usual difference around it that of a cut is."""
_AROUND_S = 0.5
"""Seconds before and after a frame whose differences are usual there."""
_TOGETHER = 64
"""Pairs of frames that are compared at once."""


def reduced(frames: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 s s"]:
    """Frames averaged to a few pixels, as levels in [0, 255]."""
    return F.adaptive_avg_pool2d(frames.float(), _SIDE)


def differences(frames: Float[Tensor, "n 3 s s"]) -> Float[Tensor, " m"]:
    """Mean absolute difference of each reduced frame but the first from the one before it, in levels of 255."""
    return (frames[1:] - frames[:-1]).abs().mean(dim=(1, 2, 3))


def find_cuts(
    frames: FrameSource, bounds: Int[Tensor, "e 2"], change: Float[Tensor, " n"], *, fps: float
) -> Int[Tensor, " c"]:
    """First frame of every scene but the first of each film.

    Args:
        frames: Frames of all films; those that stand out by `change` are read, and the ones before them.
        bounds: First frame of every film and the one after its last.
        change: Difference of every frame from the one before it (`differences`); 0 for the first of a film.
        fps: Frames per second.
    """
    suspects = torch.cat([first + _outliers(change[first:end], fps) for first, end in bounds.tolist()])
    is_cut = [
        _is_other_scene(*frames.read(torch.stack([some - 1, some], dim=1)).unbind(dim=1))
        for some in suspects.split(_TOGETHER)
    ]
    return suspects[torch.cat(is_cut)] if is_cut else suspects


def _outliers(change: Float[Tensor, " n"], fps: float) -> Int[Tensor, " m"]:
    """Frames of one film whose change stands out from those around it."""
    around = max(round(_AROUND_S * fps), 2)
    padded = F.pad(change, (around, around), value=torch.nan)
    usual = torch.cat([some.nanmedian(dim=1).values for some in padded.unfold(0, 2 * around + 1, 1).split(4096)])
    # A frame of which enough blocks are new has changed by at least this much.
    stands_out = (change > _NEW_SHARE * _TOLERANCE) & (change > _OUTLIER * usual)
    return stands_out.nonzero()[:, 0]


def _is_other_scene(before: UInt8[Tensor, "m 3 h w"], after: UInt8[Tensor, "m 3 h w"]) -> Bool[Tensor, " m"]:
    """Whether most blocks of `after` are found nowhere near their place in `before`."""
    old, new = reduced(before), reduced(after)
    padded = F.pad(old, (_REACH,) * 4, mode="replicate")
    best = torch.full((len(new), _BLOCKS, _BLOCKS), torch.inf)
    for down in range(2 * _REACH + 1):
        for right in range(2 * _REACH + 1):
            moved = padded[:, :, down : down + _SIDE, right : right + _SIDE]
            apart = F.adaptive_avg_pool2d((moved - new).abs().mean(dim=1, keepdim=True), _BLOCKS)
            best = torch.minimum(best, apart[:, 0])
    return (best > _TOLERANCE).float().mean(dim=(1, 2)) > _NEW_SHARE
