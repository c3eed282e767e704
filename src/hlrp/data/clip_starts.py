"""Which clips exist: the frames of a source at which a clip starts that stays within its episode and its scene.

A clip consists of the frames t, t+offset, …

Shapes: clips the usable clips of a source.
"""

from __future__ import annotations

import logging

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hlrp.data.dataset import episode_of_frame
from hlrp.data.sources import ClipSource

logger = logging.getLogger(__name__)


def clip_is_valid(bounds: Int[Tensor, "e 2"], deltas: list[int]) -> Bool[Tensor, " f"]:
    """Whether the clip that starts at each frame ends within the episode, or the scene, of this frame.

    Args:
        bounds: Start and end of every episode or scene: its first frame, and one after its last frame. With
            `ClipSource.bounds` clips may contain a scene cut, with `ClipSource.scenes` they may not.
        deltas: Frames of a clip, relative to its first frame.

    Raises:
        ValueError: If no episode is long enough for a single clip.
    """
    require_clip(bounds, deltas)
    return frames_left(bounds) >= max(deltas)


def require_clip(bounds: Int[Tensor, "e 2"], deltas: list[int]) -> None:
    """Raise unless an episode is long enough for a clip; arguments as of `clip_is_valid`.

    Raises:
        ValueError: If no episode is long enough for a single clip.
    """
    longest = int((bounds[:, 1] - bounds[:, 0]).max())
    if longest <= max(deltas):
        raise ValueError(
            f"a clip spans {max(deltas) + 1} frames but the longest episode has {longest}; use a shorter offset"
        )


def clip_starts(source: ClipSource, deltas: list[int], episodes: Int[Tensor, " e"]) -> Int[Tensor, " clips"]:
    """Frames of `episodes` at which a clip starts that contains no scene cut and ends within its episode.

    Raises:
        ValueError: If there is no such frame.
    """
    if not len(episodes):
        raise ValueError(
            f"no episode of {source.name} is left to measure on: it takes two that are long enough for a clip, one to "
            "train or fit on and one to hold out"
        )
    usable = clip_is_valid(source.scenes, deltas) & torch.isin(episode_of_frame(source.bounds), episodes)
    if not usable.any():
        raise ValueError(
            f"none of the {len(episodes)} chosen episodes of {source.name} is long enough for a clip; use a shorter "
            "offset or another seed"
        )
    return usable.nonzero()[:, 0]


def has_clip(source: ClipSource, deltas: list[int]) -> Bool[Tensor, " e"]:
    """Whether each episode has a scene that is long enough for a clip; `deltas` as in `clip_is_valid`."""
    scenes, ends = source.scenes, source.bounds[:, 1].contiguous()
    long_enough = scenes[:, 1] - scenes[:, 0] > max(deltas)
    found = torch.zeros(len(ends), dtype=torch.bool)
    found[torch.searchsorted(ends, scenes[long_enough, 0].contiguous(), right=True)] = True
    return found


def frames_left(bounds: Int[Tensor, "e 2"]) -> Int[Tensor, " f"]:
    """Number of frames after each frame in its episode (or scene, if `bounds` are those of scenes).

    Episodes follow each other without a gap; the first need not start at frame 0.
    """
    lengths = bounds[:, 1] - bounds[:, 0]
    first = int(bounds[0, 0])
    return torch.repeat_interleave(bounds[:, 1], lengths) - 1 - torch.arange(first, first + int(lengths.sum()))


def log_cuts(source: ClipSource, deltas: list[int]) -> None:
    """Log how many clips are left out because they contain a scene cut; log nothing if there are no cuts."""
    if not len(source.cuts):
        return
    whole = clip_is_valid(source.bounds, deltas)
    across = whole & ~clip_is_valid(source.scenes, deltas)
    logger.info(
        f"{source.name}: {len(source.cuts)} scene cuts; {int(across.sum())} of {int(whole.sum())} clips lie across one "
        "and are left out (find_scene_cuts=false keeps them)"
    )
