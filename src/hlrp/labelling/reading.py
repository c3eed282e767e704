"""Read the clips of shards in order: every frame is decoded once, and kept as long as a clip needs it.

Shapes: m cameras, h x w pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from hlrp.data.frames import StackedFrames
from hlrp.data.video_files import close_files
from hlrp.labelling.job import LabelJob
from hlrp.labelling.shards import Shard

logger = logging.getLogger(__name__)

_READ_TOGETHER = 64
"""Frames that are decoded at once when an episode is searched for damage."""


@dataclass(frozen=True, kw_only=True)
class ReadBatch:
    """Clips of one shard that are labelled together."""

    shard: Shard
    skipped: dict[int, str]
    """Episodes of the shard that are left out, and why. If it is not empty, the shard began anew with this batch or an
    earlier one, and earlier batches without it do not count."""
    index: Int[Tensor, " b"]
    """First frame of every clip; empty if no frame of the shard gets a label."""
    clips: UInt8[Tensor, "b t m c h w"] | None
    """Frames that the labeller sees; None if the batch is empty."""
    is_last: bool
    """Whether the shard ends with this batch."""


def read_shards(job: LabelJob, shards: Sequence[Shard]) -> Iterator[ReadBatch]:
    """Batches of all `shards`, in order.

    Raises:
        ValueError: If frames cannot be decoded, and their episodes may not be skipped.
    """
    for before, shard in zip([None, *shards], shards, strict=False):  # each with the one before it
        if before is not None and _file_of(job, before) != _file_of(job, shard):
            close_files()  # a decoder that stays open keeps frames in memory
        try:
            yield from _read_shard(job, shard, {})
        except ValueError:
            bad = _bad_episodes(job, shard) if job.skip_bad_episodes else {}
            if not bad:
                raise
            yield from _read_shard(job, shard, bad)


def _file_of(job: LabelJob, shard: Shard) -> int:
    """Number of the video file of `shard`; 0 if the source has no video files."""
    files = job.source.frames.episode_files
    return 0 if files is None else int(files[shard.episodes.start])


def _read_shard(job: LabelJob, shard: Shard, skipped: dict[int, str]) -> Iterator[ReadBatch]:
    starts = shard.first + job.usable(shard, without=frozenset(skipped)).nonzero()[:, 0]
    if not len(starts):
        yield ReadBatch(shard=shard, skipped=skipped, index=starts, clips=None, is_last=True)
        return
    deltas = job.labeller.deltas(job.source.fps)
    for index, clips in clip_batches(job.source.frames, starts, deltas, batch_size=job.batch_size):
        is_last = bool(index[-1] == starts[-1])
        yield ReadBatch(shard=shard, skipped=skipped, index=index, clips=clips, is_last=is_last)


def clip_batches(
    frames: StackedFrames, starts: Int[Tensor, " clips"], deltas: Sequence[int], *, batch_size: int
) -> Iterator[tuple[Int[Tensor, " b"], UInt8[Tensor, "b t m c h w"]]]:
    """Batches of clips and their first frames, in order.

    Args:
        frames: Frames by absolute index; every frame is read once, in order.
        starts: First frames of the clips, increasing.
        deltas: Frames of a clip, relative to its first frame, increasing from 0.
        batch_size: Clips of a batch; the last one may have fewer.
    """
    offsets = torch.tensor(deltas)
    wanted = (starts[:, None] + offsets).unique()
    done = 0  # number of wanted frames that have been read
    held_index, held = wanted[:0], None
    for chunk in starts.split(batch_size):
        place = chunk[:, None] + offsets
        end = int(torch.searchsorted(wanted, place.max(), right=True))
        keep = held_index >= chunk[0]
        held_index = torch.cat([held_index[keep], wanted[done:end]])
        new = frames.read(wanted[done:end, None])[:, 0]
        held = new if held is None else torch.cat([held[keep], new])
        done = end
        found = held.index_select(0, torch.searchsorted(held_index, place.flatten()))
        yield chunk, found.reshape(*place.shape, *held.shape[1:])


def _bad_episodes(job: LabelJob, shard: Shard) -> dict[int, str]:
    """Episodes of `shard` with frames that cannot be decoded, and why; all of its frames are decoded for it."""
    bad: dict[int, str] = {}
    for number in shard.episodes:
        first, end = job.source.bounds[number].tolist()
        try:
            for run in torch.arange(first, end).split(_READ_TOGETHER):
                job.source.frames.read(run[:, None])
        except ValueError as error:
            bad[number] = str(error).replace(f"{job.folder}/", "")
            logger.warning(f"left out: episode {number}, {error}")
    return bad
