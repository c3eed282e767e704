"""Find scene cuts in videos, since a quantizer would take a cut for motion.

A frame counts as the first of a new scene if both of these are true, so that fast motion is not taken for a cut:

- It differs from the previous frame much more than neighbouring frames differ from theirs. Motion lasts for several
  frames, a cut for one.
- Most of its blocks do not appear near their position in the previous frame. Moving objects do.

Both tests use frames reduced to a few pixels. They miss cuts between two similar pictures, and slow fades.

Shapes: cuts the scene cuts, pairs a number of pairs of frames, side the side of a reduced frame.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from hlrp.data.frames import FrameSource

_SIDE = 32
"""Side of a reduced frame, in pixels."""
_BLOCKS = 4
"""Blocks along each side of a reduced frame."""
_REACH = 8
"""Largest shift, in pixels of the reduced frame, at which a block is searched in the previous frame: a quarter of the
picture."""
_TOLERANCE = 12.0
"""Largest mean difference, in levels of [0, 255], of a block that counts as found again; allows for noise and for
motion by fractions of a pixel."""
_NEW_SHARE = 0.6
"""Smallest share of new blocks after a cut. Measured: pictures shifted by a fifth of their width have at most 0.5 new
blocks, pairs of different photographs at least 0.75."""
_OUTLIER = 2.0
"""Smallest ratio of the difference at a cut to the median difference around it."""
_AROUND_S = 0.5
"""Seconds before and after a frame over which the median difference is taken."""
_TOGETHER = 64
"""Pairs of frames that are compared at once."""


def reduced(frames: UInt8[Tensor, "f 3 h w"]) -> Float[Tensor, "f 3 side side"]:
    """Reduce frames to a few pixels by averaging; float32 in [0, 255]."""
    return F.adaptive_avg_pool2d(frames.float(), _SIDE)


def differences(frames: Float[Tensor, "f 3 side side"]) -> Float[Tensor, " pairs"]:
    """Mean absolute difference between consecutive reduced frames, in [0, 255]; one value less than frames."""
    return (frames[1:] - frames[:-1]).abs().mean(dim=(1, 2, 3))


def find_cuts(
    frames: FrameSource, bounds: Int[Tensor, "e 2"], change: Float[Tensor, " f"], *, fps: float
) -> Int[Tensor, " cuts"]:
    """Absolute indices of the first frames after scene cuts.

    Args:
        frames: Frames of all films; only candidates for a cut, and the frames before them, are read.
        bounds: Start and end of every film: its first frame, and one after its last frame.
        change: Difference of every frame from the previous one (see `differences`); 0 for the first frame of a film.
        fps: Frame rate, in Hz.
    """
    films = bounds.tolist()
    return torch.cat([cuts_of_film(frames, first, change[first:end], fps=fps) for first, end in films])


def cuts_of_film(frames: FrameSource, first: int, change: Float[Tensor, " f"], *, fps: float) -> Int[Tensor, " cuts"]:
    """Absolute indices of the first frames after the scene cuts of one film.

    Args:
        frames: Frames of all films; only candidates for a cut, and the frames before them, are read.
        first: First frame of the film.
        change: Difference of every frame of the film from the previous one (see `differences`); 0 for its first frame.
        fps: Frame rate, in Hz.
    """
    suspects = first + _outliers(change, fps)
    is_cut = [
        _is_other_scene(*frames.read(torch.stack([batch - 1, batch], dim=1)).unbind(dim=1))
        for batch in suspects.split(_TOGETHER)
    ]
    return suspects[torch.cat(is_cut)] if is_cut else suspects


def _outliers(change: Float[Tensor, " f"], fps: float) -> Int[Tensor, " _"]:
    """Frames of one film whose change is much larger than the median change around them."""
    around = max(round(_AROUND_S * fps), 2)
    padded = F.pad(change, (around, around), value=torch.nan)
    usual = torch.cat([rows.nanmedian(dim=1).values for rows in padded.unfold(0, 2 * around + 1, 1).split(4096)])
    # The first bound misses no cut: blocks that are new differ by more than _TOLERANCE, the whole frame in proportion.
    stands_out = (change > _NEW_SHARE * _TOLERANCE) & (change > _OUTLIER * usual)
    return stands_out.nonzero()[:, 0]


def _is_other_scene(
    before: UInt8[Tensor, "pairs 3 h w"], after: UInt8[Tensor, "pairs 3 h w"]
) -> Bool[Tensor, " pairs"]:
    """Whether most blocks of `after` do not appear near their position in `before`."""
    old, new = reduced(before), reduced(after)
    padded = F.pad(old, (_REACH,) * 4, mode="replicate")
    best = torch.full((len(new), _BLOCKS, _BLOCKS), torch.inf)
    for down in range(2 * _REACH + 1):
        for right in range(2 * _REACH + 1):
            moved = padded[:, :, down : down + _SIDE, right : right + _SIDE]
            apart = F.adaptive_avg_pool2d((moved - new).abs().mean(dim=1, keepdim=True), _BLOCKS)
            best = torch.minimum(best, apart[:, 0])
    return (best > _TOLERANCE).float().mean(dim=(1, 2)) > _NEW_SHARE
