"""Split the frames of a source into shards: runs of episodes that are labelled, written and repeated together.

Shapes: e episodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor

from hlrp.data.sources import ClipSource


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Consecutive episodes of a source, whose frames are in one video file if the source has video files."""

    number: int
    episodes: range
    first: int
    """First frame."""
    end: int
    """One after the last frame."""

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return self.end - self.first


def plan_shards(source: ClipSource, *, max_frames: int) -> list[Shard]:
    """Split the frames of `source` into shards; no shard holds parts of an episode or of two video files.

    Episodes of one file with more than `max_frames` frames are divided evenly among as few shards as possible, so that
    several workers share a large file. A longer episode is a shard of its own.
    """
    bounds, files = source.bounds, source.frames.episode_files
    if files is None:
        files = torch.zeros(len(bounds), dtype=torch.int64)
    starts = [0, *(1 + (files[1:] != files[:-1]).nonzero()[:, 0]).tolist()]
    runs = zip(starts, [*starts[1:], len(bounds)], strict=True)
    parts = [part for run in runs for part in _divided(bounds, range(*run), max_frames)]
    return [
        Shard(number=number, episodes=part, first=int(bounds[part[0], 0]), end=int(bounds[part[-1], 1]))
        for number, part in enumerate(parts)
    ]


def _divided(bounds: Int[Tensor, "e 2"], run: range, max_frames: int) -> list[range]:
    """Divide a run of episodes into parts of about equal numbers of frames."""
    first, end = int(bounds[run[0], 0]), int(bounds[run[-1], 1])
    count = -(-(end - first) // max_frames)
    # Episode i belongs to the part in which its middle frame lies.
    middle = bounds[run.start : run.stop].double().mean(dim=1) - first
    part = (middle * count / (end - first)).long().clamp_max(count - 1)
    edges = [run.start, *(run.start + 1 + (part[1:] != part[:-1]).nonzero()[:, 0]).tolist(), run.stop]
    return [range(*edge) for edge in pairwise(edges)]
