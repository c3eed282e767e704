"""Label shards, and merge finished shards to the labels of all frames.

Decoding runs in a background thread, ahead of the model. Memory holds a few batches and one row group of the table,
whatever the number of frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, groupby
from pathlib import Path

import pyarrow as pa
import torch

from hlrp.data.label_file import VALID, LabelRows, LabelWriter, column_digests, row_groups
from hlrp.data.labels import LABELS_FILE, are_labels_of, new_labels
from hlrp.labelling.columns import is_labelled_dataset, write_labelled_dataset
from hlrp.labelling.job import LabelJob
from hlrp.labelling.reading import ReadBatch, read_shards
from hlrp.labelling.shards import Shard
from hlrp.labelling.work_folder import WorkFolder
from hlrp.latents import NO_LABEL
from hlrp.runtime.background import ahead
from hlrp.runtime.event_log import log_event
from hlrp.runtime.progress import ProgressBar, progress
from hlrp.storage.files import new_file

_BATCHES_AHEAD = 2
"""Batches that wait for the model: enough that it does not wait for an uneven decoder."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What was written."""

    target: Path
    """Folder of the labels, or of the labelled dataset."""
    frames: int
    labelled: int
    """Frames with a label."""
    skipped: dict[str, str]
    """Episodes that could not be read, by number, and why."""
    has_scenes: bool
    """Whether clips that contain a scene cut have no label."""

    def report(self) -> str:
        """What was written, for the terminal."""
        share = self.labelled / self.frames
        rest = "their episode's end" + (" or by a scene cut" if self.has_scenes else "")
        rest += ", or are of an episode that was left out" if self.skipped else ""
        lines = [f"{self.frames} frames, {share:.1%} with a label (the rest are cut by {rest}): {self.target}"]
        lines += [f"left out: episode {number}, {reason}" for number, reason in self.skipped.items()]
        return "\n".join(lines)


class _Restarted(Exception):
    """A shard begins anew, without episodes that turned out to be unreadable."""


def label_shards(job: LabelJob, work: WorkFolder, shards: Sequence[Shard], *, show_progress: bool = True) -> None:
    """Label those of `shards` that are not finished, in order.

    Raises:
        ValueError: If frames cannot be decoded, and their episodes may not be skipped.
    """
    fingerprint = job.fingerprint()
    left = work.unfinished(shards, fingerprint)
    total, to_do = (sum(shard.num_frames for shard in some) for some in (shards, left))
    bar = ProgressBar("labelling", total, unit="frame", done=total - to_do, is_shown=show_progress)
    with bar, closing(ahead(read_shards(job, left), depth=_BATCHES_AHEAD)) as batches:
        for _, group in groupby(batches, key=lambda batch: (batch.shard.number, bool(batch.skipped))):
            _label_shard(job, work, fingerprint, group, bar)


def _label_shard(
    job: LabelJob, work: WorkFolder, fingerprint: str, batches: Iterator[ReadBatch], bar: ProgressBar
) -> None:
    first = next(batches)
    shard, place = first.shard, first.shard.first
    try:
        with work.new_shard(shard, fingerprint, job.metadata, first.skipped) as writer:
            for batch in chain([first], batches):
                end = shard.end if batch.is_last else int(batch.index[-1]) + 1
                writer.add(_rows(job, place, end, batch))
                bar.update(end - place)
                place = end
            if place < shard.end:
                raise _Restarted
        log_event("checkpoint", path=str(work.file(shard)), shard=shard.number, frames=shard.num_frames)
    except _Restarted:
        bar.update(shard.first - place)


def _rows(job: LabelJob, first: int, end: int, batch: ReadBatch) -> LabelRows:
    """Labels of the frames from `first` to `end`; `batch` holds the clips of all frames among them that get a label."""
    spec, bounds = job.metadata.spec, job.source.bounds
    index = torch.arange(first, end)
    episode = torch.searchsorted(bounds[:, 1].contiguous(), index, right=True)
    codes = torch.full((len(index), spec.num_codes), NO_LABEL, dtype=torch.int64)
    vectors = torch.zeros(len(index), job.metadata.width)
    valid = torch.zeros(len(index), dtype=torch.bool)
    if batch.clips is not None:
        actions, place = job.labeller.label(batch.clips, batch.index), batch.index - first
        if actions.codes is not None:
            codes[place] = actions.codes
        vectors[place] = actions.require_vectors().flatten(1)
        valid[place] = True
    return LabelRows(
        index=index,
        episode_index=episode,
        frame_index=index - bounds[episode, 0],
        codes=codes,
        vectors=vectors,
        valid=valid,
    )


def publish(job: LabelJob, work: WorkFolder, target: Path, *, as_dataset: bool, overwrite: bool) -> Labelled:
    """Merge all shards to the labels in the folder `target`, or to a copy of the dataset there, and remove the shards.

    Raises:
        FileExistsError: If `target` exists and may not be replaced.
        ValueError: If a shard is not finished.
    """
    shards = job.shards()
    unfinished = work.unfinished(shards, job.fingerprint())
    if unfinished:
        raise ValueError(
            f"{len(unfinished)} of {len(shards)} shards have no labels, since their tasks failed; see {work.logs}, "
            "then start the same command again"
        )
    metadata = replace(job.metadata, skipped_episodes=work.skipped(shards))
    if as_dataset:
        assert job.dataset is not None, "checked with the options"
        table = work.path / "labels.parquet"
        with (
            new_file(table) as scratch,
            LabelWriter(scratch, num_codes=metadata.spec.num_codes, width=metadata.width) as writer,
        ):
            _add_all(writer, work, shards)
        beside = None if job.beside is None else job.beside(metadata, _labelled(work, shards))
        write_labelled_dataset(job.dataset, table, metadata, target, beside=beside)
    else:
        with new_labels(target, metadata, overwrite=overwrite) as writer:
            _add_all(writer, work, shards)
    return _finish(job, work, target)


def published(job: LabelJob, work: WorkFolder, target: Path, *, as_dataset: bool) -> Labelled | None:
    """Result of an earlier run of the same job that was interrupted before it had removed its shards, or None.

    The shards are removed.
    """
    shards, fingerprint = job.shards(), job.fingerprint()
    note = work.note_of_finished(fingerprint)
    if note is None and (not work.holds(fingerprint) or work.unfinished(shards, fingerprint)):
        return None
    skipped = work.skipped(shards) if note is None else note["skipped"]
    metadata = replace(job.metadata, skipped_episodes=skipped)
    if not (is_labelled_dataset(target, metadata) if as_dataset else are_labels_of(target, metadata)):
        return None
    if note is None:
        # An existing dataset is never replaced, but `target` may hold older labels that the run was to replace, and
        # whose description is the same: options such as `find_scene_cuts` are not part of it.
        return _finish(job, work, target) if as_dataset or _holds_rows_of(target, work, shards) else None
    work.remove()
    return Labelled(target=target, has_scenes=job.find_scene_cuts, **note)


def _holds_rows_of(target: Path, work: WorkFolder, shards: Sequence[Shard]) -> bool:
    """Whether the table of labels in the folder `target` can be read and holds the rows of all `shards`."""
    try:
        found = column_digests(row_groups(target / LABELS_FILE))
    except (pa.ArrowException, OSError):  # damaged, or missing
        return False
    return found == column_digests(work.tables(shards))


def _finish(job: LabelJob, work: WorkFolder, target: Path) -> Labelled:
    """Count the labels of all shards, and remove the shards."""
    shards = job.shards()
    facts = {
        "frames": shards[-1].end,
        "labelled": _labelled(work, shards),
        "skipped": work.skipped(shards),
    }
    work.note_finished(job.fingerprint(), facts)
    work.remove()
    return Labelled(target=target, has_scenes=job.find_scene_cuts, **facts)


def _labelled(work: WorkFolder, shards: Sequence[Shard]) -> int:
    """Number of frames with a label in all `shards`."""
    tables = (table for shard in shards for table in row_groups(work.file(shard), columns=[VALID]))
    return sum(int(table.column(VALID).to_numpy().sum()) for table in tables)


def _add_all(writer: LabelWriter, work: WorkFolder, shards: Sequence[Shard]) -> None:
    for table in progress(work.tables(shards), "merging", unit="piece"):
        writer.add(table)
