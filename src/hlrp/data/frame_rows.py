"""Check that the rows of a LeRobotDataset agree with its metadata: order, numbering and time stamps of frames.

Latent labels, tables of labelled frames and LeRobot's action chunks address a frame by its number in the column
`index`. If that number is wrong, they silently use another frame.

Rows are read in chunks, twice: memory does not grow with the number of frames. The order of rows is compared with the
episodes that have rows, which are known only when all rows have been read.

Shapes: e episodes, f frames of a chunk.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
from jaxtyping import Int
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from hlrp.data.episode_table import TaskCheck, require_sound_metadata
from hlrp.data.row_chunks import RowChunk, row_chunks
from hlrp.data.time_stamps import TimeStampCheck

_PLACES = ["index", "episode_index", "frame_index"]
_COLUMNS = [*_PLACES, "timestamp", "task_index"]


def require_sound_rows(meta: LeRobotDatasetMetadata, *, whole: bool, tolerance_s: float | None) -> None:
    """Raise unless order, numbers, time stamps and tasks of all rows agree with the metadata.

    Only the columns `index`, `episode_index`, `frame_index`, `timestamp` and `task_index` of the data files are read.

    Args:
        meta: Metadata of the dataset, whose data files are in `meta.root`.
        whole: Whether every episode must have its rows. False if only some episodes were downloaded, and for a streamed
            dataset, which has no local data files.
        tolerance_s: Largest deviation of the time between two frames from 1 / fps, in seconds; None to compare only the
            median frame rate, and to leave the rest to LeRobot.

    Raises:
        FileNotFoundError: If there are no data files, or an episode has no rows.
        ValueError: If a row does not agree; the message names the first such row and what to do.
    """
    bounds = _bounds(meta)
    folder = Path(meta.root) / "data"
    require_sound_metadata(meta, bounds, whole=whole)
    if not whole and not any(folder.glob("*/*.parquet")):
        return
    counts = _require_known_frames(meta, bounds, folder, whole=whole)
    places = _PlaceCheck(meta, bounds, np.flatnonzero(counts))
    times = TimeStampCheck(meta, tolerance_s=tolerance_s)
    for chunk in row_chunks(folder, [*_PLACES, "timestamp"]):
        places.add(chunk)
        times.add(*(chunk.column(name) for name in ("timestamp", "episode_index", "frame_index")))
    places.finish()
    times.finish()


def _require_known_frames(
    meta: LeRobotDatasetMetadata, bounds: Int[np.ndarray, "e 2"], folder: Path, *, whole: bool
) -> Int[np.ndarray, " e"]:
    """Raise unless all rows are of listed tasks and episodes, and every episode has all of its rows.

    Returns:
        Number of rows of every episode.
    """
    tasks, lengths, without_number = TaskCheck(meta), _LengthCheck(meta, bounds, whole=whole), None
    for chunk in row_chunks(folder, _COLUMNS):
        without_number = without_number or next((name for name in _COLUMNS if chunk.lacks_numbers(name)), None)
        if without_number is None:  # else the next checks could not read the chunk
            tasks.add(chunk.column("task_index"), first=chunk.first)
            lengths.add(chunk.column("episode_index"))
    if without_number is not None:
        raise ValueError(f"column {without_number!r} of {folder} has rows without a number; copy the dataset again")
    tasks.finish()
    return lengths.finish()


class _LengthCheck:
    """Whether all rows belong to listed episodes, and every episode has as many rows as the metadata says."""

    def __init__(self, meta: LeRobotDatasetMetadata, bounds: Int[np.ndarray, "e 2"], *, whole: bool) -> None:
        self._meta, self._folder, self._whole = meta, Path(meta.root) / "data", whole
        self._lengths = bounds[:, 1] - bounds[:, 0]
        self._counts = np.zeros(len(bounds), dtype=np.int64)
        self._unknown: int | None = None
        """Number of the first episode that the metadata does not list."""

    def add(self, episode: Int[np.ndarray, " f"]) -> None:
        """Take the episodes of the next rows."""
        unknown = (episode < 0) | (episode >= len(self._counts))
        if unknown.any() and self._unknown is None:
            self._unknown = int(episode[unknown.argmax()])
        self._counts += np.bincount(episode[~unknown].astype(np.int64), minlength=len(self._counts))

    def finish(self) -> Int[np.ndarray, " e"]:
        """Raise if an episode is not listed, or lacks rows; returns the number of rows of every episode."""
        counts, lengths = self._counts, self._lengths
        if self._unknown is not None:
            raise ValueError(
                f"{self._folder} holds a row of episode {self._unknown}, meta/episodes lists 0 to {len(counts) - 1}; "
                "copy the dataset again"
            )
        lost = np.flatnonzero(counts == 0)
        if self._whole and len(lost):
            raise FileNotFoundError(
                f"{self._folder} holds no row of episode {lost[0]}, which "
                f"{self._meta.get_data_file_path(int(lost[0]))} should hold; copy the whole dataset again"
            )
        wrong = np.flatnonzero((counts != lengths) & (counts > 0))
        if len(wrong):
            number = wrong[0]
            raise ValueError(
                f"{self._folder} holds {counts[number]} rows of episode {number}, meta/episodes says "
                f"{lengths[number]}; copy the dataset again, or leave the episode out with lerobot-edit-dataset "
                "--operation.type=delete_episodes"
            )
        return counts


class _PlaceCheck:
    """Whether the rows are in the order of the episodes and their frames, and `index` counts all frames."""

    def __init__(
        self, meta: LeRobotDatasetMetadata, bounds: Int[np.ndarray, "e 2"], present: Int[np.ndarray, " _"]
    ) -> None:
        self._meta, self._folder, self._bounds, self._present = meta, Path(meta.root) / "data", bounds, present
        self._ends = (bounds[present, 1] - bounds[present, 0]).cumsum()
        """One after the last row of every episode that has rows."""
        self._misnumbered: str | None = None
        """Message on the first row with a wrong index; a wrong order of rows explains it, and is reported instead."""

    def add(self, chunk: RowChunk) -> None:
        """Raise if the next rows are not in order."""
        index, episode, frame = (chunk.column(name) for name in _PLACES)
        expected = self._expected(np.arange(chunk.first, chunk.first + len(chunk)))
        wrong = (episode != expected[1]) | (frame != expected[2])
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"the rows of {self._folder} are not in the order of the episodes: row {chunk.first + row} holds frame "
                f"{frame[row]} of episode {episode[row]}, expected frame {expected[2][row]} of episode "
                f"{expected[1][row]}; sort the rows by episode_index and frame_index and number the frames of every "
                "episode from 0, or copy the dataset again"
            )
        wrong = index != expected[0]
        if wrong.any() and self._misnumbered is None:
            row = int(wrong.argmax())
            self._misnumbered = (
                f"frame {frame[row]} of episode {episode[row]} has index {index[row]}, expected {expected[0][row]}"
            )

    def _expected(self, row: Int[np.ndarray, " f"]) -> Int[np.ndarray, "3 f"]:
        """Expected values of `index`, `episode_index` and `frame_index` of the rows with these numbers."""
        place = np.searchsorted(self._ends, row, side="right")
        episode = self._present[place]
        first, end = self._bounds[episode].T
        frame = row - (self._ends[place] - (end - first))
        return np.stack([first + frame, episode, frame])

    def finish(self) -> None:
        """Raise if an index is wrong."""
        if self._misnumbered is None:
            return
        root = Path(self._meta.root).resolve()
        target = f"{root}_renumbered"
        raise ValueError(
            f"the column `index` of {self._folder} does not count the frames: {self._misnumbered}, so that labels and "
            f"actions of other frames would be taken; number them anew with `lerobot-edit-dataset "
            f"--repo_id={shlex.quote(self._meta.repo_id)} --root={shlex.quote(str(root))} "
            f"--new_root={shlex.quote(target)} --operation.type=split --operation.splits='{{\"all\": 1.0}}'` and use "
            f"{target}/all"
        )


def _bounds(meta: LeRobotDatasetMetadata) -> Int[np.ndarray, "e 2"]:
    """Start and end of every episode by the metadata, after a check that episodes follow each other without a gap."""
    assert meta.episodes is not None, "a dataset that was opened has its episodes"
    number, first, end, length = (
        np.asarray(meta.episodes[name], dtype=np.int64)
        for name in ("episode_index", "dataset_from_index", "dataset_to_index", "length")
    )
    starts = np.concatenate([[0], end[:-1]])
    wrong = (number != np.arange(len(number))) | (first != starts) | (end - first != length) | (length < 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"meta/episodes of {meta.root} does not list its episodes one after the other: row {row} is episode "
            f"{number[row]} with {length[row]} frames from {first[row]} to {end[row]}, expected episode {row} from "
            f"{starts[row]}; copy the dataset again, or record it anew"
        )
    found = {"episodes": (len(number), meta.total_episodes), "frames": (int(end[-1]), meta.total_frames)}
    for what, (listed, counted) in found.items():
        if listed != counted:
            raise ValueError(
                f"meta/episodes of {meta.root} lists {listed} {what}, meta/info.json counts {counted}; copy the "
                "dataset again"
            )
    return np.stack([first, end], axis=1)
