"""Check that the rows of a LeRobotDataset agree with its metadata: order, numbering and time stamps of frames.

Latent labels, tables of labelled frames and LeRobot's action chunks address a frame by its number in the column
`index`. If that number is wrong, they silently use another frame.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from hlrp.data.dataset_files import data_files
from hlrp.data.episode_table import require_known_tasks, require_sound_metadata

_COLUMNS = ["index", "episode_index", "frame_index", "timestamp", "task_index"]
_RATE_TOLERANCE = 0.05
"""Largest relative difference between `fps` and the median frame rate of time stamps; a wrong `fps` differs by more."""


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
    table = read_columns(folder, _COLUMNS)
    for name in _COLUMNS:
        if table.column(name).null_count or not pa.types.is_primitive(table.schema.field(name).type):
            raise ValueError(f"column {name!r} of {folder} has rows without a number; copy the dataset again")
    index, episode, frame = (table.column(name).to_numpy() for name in _COLUMNS[:3])
    require_known_tasks(meta, table.column("task_index").to_numpy())
    expected = _expected_rows(bounds, episode, meta, whole=whole)
    wrong = (episode != expected[1]) | (frame != expected[2])
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"the rows of {folder} are not in the order of the episodes: row {row} holds frame {frame[row]} of episode "
            f"{episode[row]}, expected frame {expected[2][row]} of episode {expected[1][row]}; sort the rows by "
            "episode_index and frame_index and number the frames of every episode from 0, or copy the dataset again"
        )
    if (index != expected[0]).any():
        row = int((index != expected[0]).argmax())
        target = f"{Path(meta.root).resolve()}_renumbered"
        raise ValueError(
            f"the column `index` of {folder} does not count the frames: frame {frame[row]} of episode {episode[row]} "
            f"has index {index[row]}, expected {expected[0][row]}, so that labels and actions of other frames would be "
            f"taken; number them anew with `lerobot-edit-dataset --repo_id={shlex.quote(meta.repo_id)} "
            f"--root={shlex.quote(str(Path(meta.root).resolve()))} --new_root={shlex.quote(target)} "
            f"--operation.type=split --operation.splits='{{\"all\": 1.0}}'` and use {target}/all"
        )
    _require_times(meta, table.column("timestamp").to_numpy(), episode, frame, tolerance_s=tolerance_s)


def read_columns(folder: Path, columns: list[str]) -> pa.Table:
    """Read `columns` of all rows in a dataset's folder `data`, in LeRobot's order of files and rows.

    Raises:
        FileNotFoundError: If there is no data file.
        ValueError: If a file is damaged or lacks a column.
    """
    parts = []
    for path in data_files(folder):
        try:
            lost = [name for name in columns if name not in pq.read_schema(path).names]
            if not lost:
                parts.append(pq.read_table(path, columns=columns))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{path} cannot be read, so it is cut short or damaged; copy it again, or download the dataset anew"
            ) from error
        if lost:
            raise ValueError(f"{path} lacks the column {lost[0]!r}; copy it again, or download the dataset anew")
    return pa.concat_tables(parts, promote_options="permissive")


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


def _expected_rows(
    bounds: Int[np.ndarray, "e 2"], episode: Int[np.ndarray, " f"], meta: LeRobotDatasetMetadata, *, whole: bool
) -> Int[np.ndarray, "3 f"]:
    """Expected values of `index`, `episode_index` and `frame_index` for every row, in the order of the rows."""
    folder = Path(meta.root) / "data"
    unknown = (episode < 0) | (episode >= len(bounds))
    if unknown.any():
        raise ValueError(
            f"{folder} holds a row of episode {episode[unknown.argmax()]}, meta/episodes lists 0 to {len(bounds) - 1}; "
            "copy the dataset again"
        )
    counts = np.bincount(episode, minlength=len(bounds))
    lengths = bounds[:, 1] - bounds[:, 0]
    lost = np.flatnonzero(counts == 0)
    if whole and len(lost):
        raise FileNotFoundError(
            f"{folder} holds no row of episode {lost[0]}, which {meta.get_data_file_path(int(lost[0]))} should hold; "
            "copy the whole dataset again"
        )
    wrong = np.flatnonzero((counts != lengths) & (counts > 0))
    if len(wrong):
        number = wrong[0]
        raise ValueError(
            f"{folder} holds {counts[number]} rows of episode {number}, meta/episodes says {lengths[number]}; copy the "
            "dataset again, or leave the episode out with lerobot-edit-dataset --operation.type=delete_episodes"
        )
    present = np.flatnonzero(counts)
    index = np.concatenate([np.arange(*bounds[number]) for number in present])
    episodes = np.repeat(present, lengths[present])
    return np.stack([index, episodes, index - bounds[episodes, 0]])


def _require_times(
    meta: LeRobotDatasetMetadata,
    timestamp: Float[np.ndarray, " f"],
    episode: Int[np.ndarray, " f"],
    frame: Int[np.ndarray, " f"],
    *,
    tolerance_s: float | None,
) -> None:
    """Raise unless the time stamps within each episode increase by 1 / fps from frame to frame."""
    seconds = timestamp.astype(np.float64)
    steps = np.diff(seconds)[episode[1:] == episode[:-1]]
    if not len(steps):
        return
    usual = float(np.median(steps))
    if not abs(usual * meta.fps - 1) <= _RATE_TOLERANCE:
        rate = f"{1 / usual:.4g} frames a second" if usual > 0 else "no time from frame to frame"
        raise ValueError(
            f"meta/info.json of {meta.root} says fps={meta.fps:g}, the column `timestamp` shows {rate}; correct the "
            "one that is wrong, since offsets in seconds become frames by fps"
        )
    rounding = np.spacing(np.abs(seconds).max().astype(np.float32))  # time stamps are stored as float32
    if tolerance_s is not None:
        late = np.abs(steps - 1 / meta.fps).max()
        if not late <= tolerance_s + 2 * rounding:
            raise ValueError(
                f"the time stamps of {meta.root} are rough: a frame comes up to {late:.4g} s off 1/fps, "
                f"tolerance_s={tolerance_s:g} allows less; if that does no harm, set --tolerance_s={late * 1.1:.2g} "
                "here and in lerobot-train"
            )
    if meta.video_keys:
        off = np.abs(seconds - frame / meta.fps)
        row = int(off.argmax())
        if not off[row] <= max(0.5 / meta.fps, tolerance_s or 0):
            raise ValueError(
                f"frame {frame[row]} of episode {episode[row]} of {meta.root} has the time stamp {seconds[row]:.4f} s, "
                f"expected {frame[row] / meta.fps:.4f} s: LeRobot would show a policy another picture of the video "
                "than the one at this place; correct the column `timestamp`, or record the dataset anew"
            )
