"""Identify recordings in whatever folder they are: those that a LAQ was trained on, and those that labels describe.

A LAQ stores what is known of every source of clips, also of plain videos: `source_identity`. Labels store digests of
the files of a dataset: `dataset_identity`. These digests stay the same if a dataset is copied, moved, uploaded and
downloaded, or gets more columns, tasks or statistics. They differ if episodes, time stamps, states, actions or the
pictures of a labelled camera differ; for labels of a foundation model, which reads instructions, also if an instruction
differs.

Cost of `dataset_identity`: the columns of time stamps, states and actions are read completely (1 s for a million frames
of 14 numbers). Of every video file, the size and three pieces of 64 KiB are read; of cameras stored as images, at most
256 pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor

from hlrp.data.dataset_files import data_files

_RECORDS = ("timestamp", OBS_STATE, ACTION)
"""Columns that enter the digest `records`, if the dataset has them."""
_PIECE = 64 * 1024
"""Bytes that are read at the start, in the middle and at the end of each video file."""
_PIECE_ROWS = 65_536
"""Rows of a column that are read at once."""
_RUNS, _RUN_FRAMES = 16, 16
"""Number of runs of consecutive images that are read, spread over the dataset, and images of each run."""


@dataclass(frozen=True, kw_only=True)
class RecordingIdentity:
    """Facts that distinguish one set of recordings from another; None if unknown. Digests have 16 hex digits."""

    name: str | None = None
    episodes: int | None = None
    """Number of episodes."""
    fps: float | None = None
    """Frame rate, in Hz."""
    lengths: str | None = None
    """Digest of the first and last frames of all episodes."""
    duration_s: float | None = None
    """Sum of the lengths of all episodes, in seconds; None in checkpoints that did not store it."""
    actions: str | None = None
    """Digest of all actions."""
    clock: str | None = None
    """Digest of the frame rate and the lengths of all episodes."""
    records: str | None = None
    """Digest of time stamps, states and actions."""
    pictures: str | None = None
    """Digest of pictures of the labelled cameras."""
    instructions: str | None = None
    """Digest of the instruction of every frame; None unless the model that labels reads instructions."""

    def for_laq(self) -> dict[str, object]:
        """The facts of `source_identity` as plain values, for `laq.json`."""
        return {name: getattr(self, name) for name in ("name", "episodes", "fps", "lengths", "duration_s", "actions")}

    def for_labels(self) -> dict[str, str | None]:
        """The digests of `dataset_identity` as plain values, for `labels.json`."""
        read = {} if self.instructions is None else {"instructions": self.instructions}
        return {"episodes": self.clock, "records": self.records, "pictures": self.pictures, **read}

    @classmethod
    def from_labels(cls, values: Mapping[str, str | None]) -> RecordingIdentity:
        """Inverse of `for_labels`; a digest that is not stored is not known."""
        return cls(
            clock=values.get("episodes"),
            records=values.get("records"),
            pictures=values.get("pictures"),
            instructions=values.get("instructions"),
        )

    def matches(self, other: RecordingIdentity) -> bool:
        """Whether two results of `source_identity` are the same recordings in the same order, in whatever folder.

        Equal actions prove that recordings are the same. Without actions the names must be equal too, since episodes of
        equal length are common. Video files may be sampled at another frame rate: then they must last equally long.
        """
        if self.episodes != other.episodes:
            return False
        if self.lengths != other.lengths if self.fps == other.fps else not self._lasts_as_long_as(other):
            return False
        if self.actions is None or other.actions is None:
            return self.actions is other.actions and self.name == other.name
        return self.fps == other.fps and self.actions == other.actions

    def _lasts_as_long_as(self, other: RecordingIdentity) -> bool:
        """Whether the durations differ by at most one frame of the slower rate per episode; false if not known."""
        if self.episodes is None or self.fps is None or other.fps is None:
            return False
        if self.duration_s is None or other.duration_s is None:
            return False
        return abs(self.duration_s - other.duration_s) * min(self.fps, other.fps) <= self.episodes

    def difference(self, other: RecordingIdentity) -> str | None:
        """Name, for messages, the first digest of `dataset_identity` that both have and that differs; None if none."""
        words = {
            "clock": "frame rate or lengths of episodes",
            "records": "time stamps, states or actions",
            "pictures": "pictures",
            "instructions": "instructions",
        }
        for name, what in words.items():
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is not None and theirs is not None and mine != theirs:
                return what
        return None


@dataclass(frozen=True, kw_only=True)
class UsedEpisodes:
    """Episodes of one source of a training run."""

    identity: RecordingIdentity
    """Result of `source_identity`."""
    train: Int[Tensor, " e"]
    held_out: Int[Tensor, " _"]


def require_unseen(parts: Sequence[UsedEpisodes]) -> None:
    """Raise if an episode is held out of one source and trained on in another, which names the same recordings.

    Raises:
        ValueError: With the name of the source and the numbers of these episodes.
    """
    for one, other in permutations(parts, 2):
        seen = one.held_out[torch.isin(one.held_out, other.train)].tolist()
        if seen and one.identity.matches(other.identity):
            raise ValueError(
                f"{one.identity.name} is in two sources: its episodes {seen} are held out of one and trained on in "
                "the other; let no two sources share an episode, or let them name the same episodes"
            )


def source_identity(
    name: str, bounds: Int[Tensor, "e 2"], *, fps: float, actions: Float[Tensor, "f a"] | None
) -> RecordingIdentity:
    """Identity of a source of clips, which may be a folder of videos.

    Args:
        name: Name of the source.
        bounds: First frame of every episode, and one after its last frame.
        fps: Frame rate, in Hz.
        actions: Action of every frame; None if none is known.
    """
    return RecordingIdentity(
        name=name,
        episodes=len(bounds),
        fps=fps,
        lengths=_digest(bounds),
        duration_s=int((bounds[:, 1] - bounds[:, 0]).sum()) / fps,
        actions=None if actions is None else _digest(actions),
    )


def dataset_identity(
    meta: LeRobotDatasetMetadata, cameras: Sequence[str], *, with_instructions: bool = False
) -> RecordingIdentity:
    """Identity of the frames of a dataset; a digest is None if files for it are not on this machine.

    Args:
        meta: Metadata of the dataset, whose files are in `meta.root`.
        cameras: Dataset keys of the labelled cameras.
        with_instructions: Whether the instructions of the frames are part of the identity.
    """
    assert meta.episodes is not None, "a dataset that was opened has its episodes"
    lengths = np.asarray(meta.episodes["length"], dtype=np.int64)
    rows = Path(meta.root) / "data"
    is_whole = all((Path(meta.root) / meta.get_data_file_path(number)).is_file() for number in range(len(lengths)))
    return RecordingIdentity(
        clock=_clock(meta.fps, lengths),
        records=_records(rows, meta) if is_whole else None,
        pictures=_pictures(meta, cameras, int(lengths.sum())) if is_whole else None,
        instructions=_instructions(rows, meta) if is_whole and with_instructions else None,
    )


def films_identity(files: Sequence[Path], bounds: Int[Tensor, "e 2"], *, fps: float) -> RecordingIdentity:
    """Identity of the frames of video files.

    Args:
        files: The video file of every episode.
        bounds: First frame of every episode, and one after its last frame.
        fps: Frame rate at which the files are sampled, in Hz.
    """
    pictures = hashlib.sha256()
    for path in files:
        for part in _file_parts(path):
            pictures.update(part)
    return RecordingIdentity(clock=_clock(fps, (bounds[:, 1] - bounds[:, 0]).numpy()), pictures=_short(pictures))


def _clock(fps: float, lengths: Int[np.ndarray, " e"]) -> str:
    return _short(hashlib.sha256(f"{float(fps)!r}".encode() + lengths.tobytes()))


def _digest(values: Tensor) -> str:
    return _short(hashlib.sha256(values.contiguous().numpy().tobytes()))


def _short(digest: hashlib._Hash) -> str:  # pyright: ignore[reportPrivateUsage]
    return digest.hexdigest()[:16]


def _records(rows: Path, meta: LeRobotDatasetMetadata) -> str:
    digest = hashlib.sha256()
    for name in _RECORDS:
        if name not in meta.features:
            continue
        digest.update(name.encode())
        for column in _pieces(rows, name):
            while isinstance(column, pa.ExtensionArray) or pa.types.is_nested(column.type):
                column = column.storage if isinstance(column, pa.ExtensionArray) else column.flatten()
            # Tools that rewrite a file may change the number type and the bit pattern of NaN, but not the values.
            values = column.to_numpy(zero_copy_only=False).astype(np.float32)
            digest.update(np.where(np.isnan(values), np.float32("nan"), values).tobytes())
    return _short(digest)


def _instructions(rows: Path, meta: LeRobotDatasetMetadata) -> str:
    """Digest of the instruction of every frame, which does not depend on the numbers of the tasks."""
    assert meta.tasks is not None, "a dataset that was opened has its tasks"
    sentences = zip(meta.tasks["task_index"], meta.tasks.index, strict=True)
    known = {int(number): hashlib.sha256(str(sentence).encode()).digest() for number, sentence in sentences}
    digest = hashlib.sha256()
    for column in _pieces(rows, "task_index"):
        # A number without a task is an error of whoever reads the instruction; here it only differs from all tasks.
        digest.update(b"".join(known.get(number, b"no task") for number in column.to_pylist()))
    return _short(digest)


def _pieces(rows: Path, name: str) -> Iterator[pa.Array]:
    """A column of a dataset in the order of its frames, in pieces, so that memory does not grow with the dataset."""
    for path in data_files(rows):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_PIECE_ROWS, columns=[name]):
                yield batch.column(0)


def _pictures(meta: LeRobotDatasetMetadata, cameras: Sequence[str], num_frames: int) -> str | None:
    digest = hashlib.sha256()
    for camera in cameras:
        if camera not in meta.camera_keys:
            return None
        digest.update(camera.encode())
        if camera in meta.video_keys:
            parts = _video_parts(meta, camera)
        else:
            parts = _image_parts(Path(meta.root) / "data", camera, num_frames)
        for part in parts:
            if part is None:
                return None
            digest.update(part)
    return _short(digest)


def _video_parts(meta: LeRobotDatasetMetadata, camera: str) -> Iterator[bytes | None]:
    """Bytes for the digest: start times of episodes, then size and pieces of every video file; None for a missing file,
    after which nothing follows."""
    assert meta.episodes is not None, "a dataset that was opened has its episodes"
    starts = np.asarray(meta.episodes[f"videos/{camera}/from_timestamp"], dtype=np.float64)
    yield np.round(starts * 1e3).astype(np.int64).tobytes()
    files = dict.fromkeys(meta.get_video_file_path(number, camera) for number in range(len(starts)))
    for path in files:
        whole = Path(meta.root) / path
        if not whole.is_file():
            yield None
            return
        yield from _file_parts(whole)


def _file_parts(path: Path) -> Iterator[bytes]:
    """Size of a file, and its bytes at the start, in the middle and at the end."""
    size = path.stat().st_size
    yield str(size).encode()
    with path.open("rb") as file:
        for place in (0, max(size - _PIECE, 0) // 2, max(size - _PIECE, 0)):
            file.seek(place)
            yield file.read(_PIECE)


def _image_parts(rows: Path, camera: str, num_frames: int) -> Iterator[bytes]:
    """Encoded images for the digest, from some runs of frames; from all frames if there are few."""
    data = pads.dataset([str(path) for path in data_files(rows)], format="parquet")
    for first in np.unique(np.linspace(0, max(num_frames - _RUN_FRAMES, 0), _RUNS).astype(int)).tolist():
        index = pads.field("index")
        table = data.to_table(columns=[camera], filter=(index >= first) & (index < first + _RUN_FRAMES))
        for image in table.column(0).to_pylist():
            yield image["bytes"] or b""
