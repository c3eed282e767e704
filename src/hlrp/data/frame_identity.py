"""Digests of the frames of a dataset, to check that latent labels were made from these frames.

The digests stay the same if a dataset is copied, moved, uploaded and downloaded, or gets more columns, tasks or
statistics. They differ if episodes, time stamps, states, actions or the pictures of a labelled camera differ.

Cost: the columns of time stamps, states and actions are read completely (1 s for a million frames of 14 numbers). Of
every video file, the size and three pieces of 64 KiB are read; of cameras stored as images, at most 256 pictures.

Shapes: e episodes, n frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.utils.constants import ACTION, OBS_STATE

from hlrp.data.dataset_files import data_files
from hlrp.data.frame_rows import read_columns

_RECORDS = ("timestamp", OBS_STATE, ACTION)
"""Columns that enter the digest `records`, if the dataset has them."""
_PIECE = 64 * 1024
"""Bytes that are read at the start, in the middle and at the end of each video file."""
_RUNS, _RUN_FRAMES = 16, 16
"""Number of runs of consecutive images that are read, spread over the dataset, and images of each run."""


@dataclass(frozen=True, kw_only=True)
class FrameIdentity:
    """Digests of a dataset's frames, 16 hexadecimal digits each; None if files for a digest are not on this machine."""

    episodes: str
    """Digest of the frame rate and the lengths of the episodes."""
    records: str | None
    """Digest of time stamps, states and actions."""
    pictures: str | None
    """Digest of pictures of the labelled cameras."""

    def to_dict(self) -> dict[str, str | None]:
        """The digests as plain values, for JSON."""
        return dict(vars(self))

    def difference(self, stored: Mapping[str, str | None]) -> str | None:
        """Name what differs from a `stored` result of `to_dict`, for messages; None if no digest that both have
        differs."""
        words = {
            "episodes": "frame rate or lengths of episodes",
            "records": "time stamps, states or actions",
            "pictures": "pictures",
        }
        for name, what in words.items():
            mine, other = getattr(self, name), stored.get(name)
            if mine is not None and other is not None and mine != other:
                return what
        return None


def frame_identity(meta: LeRobotDatasetMetadata, cameras: Sequence[str]) -> FrameIdentity:
    """Compute the digests of a dataset's frames.

    Args:
        meta: Metadata of the dataset, whose files are in `meta.root`.
        cameras: Dataset keys of the labelled cameras.
    """
    assert meta.episodes is not None, "a dataset that was opened has its episodes"
    lengths = np.asarray(meta.episodes["length"], dtype=np.int64)
    episodes = hashlib.sha256(f"{float(meta.fps)!r}".encode() + lengths.tobytes())
    rows = Path(meta.root) / "data"
    is_whole = all((Path(meta.root) / meta.get_data_file_path(number)).is_file() for number in range(len(lengths)))
    return FrameIdentity(
        episodes=_short(episodes),
        records=_records(rows, meta) if is_whole else None,
        pictures=_pictures(meta, cameras, int(lengths.sum())) if is_whole else None,
    )


def _short(digest: hashlib._Hash) -> str:  # pyright: ignore[reportPrivateUsage]
    return digest.hexdigest()[:16]


def _records(rows: Path, meta: LeRobotDatasetMetadata) -> str:
    digest = hashlib.sha256()
    for name in _RECORDS:
        if name not in meta.features:
            continue
        column = read_columns(rows, [name]).column(0).combine_chunks()
        while isinstance(column, pa.ExtensionArray) or pa.types.is_nested(column.type):
            column = column.storage if isinstance(column, pa.ExtensionArray) else column.flatten()
        # Tools that rewrite a file may change the number type and the bit pattern of NaN, but not the values.
        values = column.to_numpy(zero_copy_only=False).astype(np.float32)
        digest.update(name.encode())
        digest.update(np.where(np.isnan(values), np.float32("nan"), values).tobytes())
    return _short(digest)


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
        size = whole.stat().st_size
        yield str(size).encode()
        with whole.open("rb") as file:
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
