"""Check the tables of a LeRobotDataset that say where episodes and tasks are, against each other and against its files.

All checks compare whole columns, one row for each episode or task, and read no frame; the tasks of frames come to
`TaskCheck` in chunks.

Shapes: e episodes, f frames of a chunk.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.utils import DEFAULT_TASKS_PATH, INFO_PATH
from lerobot.utils.constants import ACTION, OBS_STATE

from hlrp.data.dataset_paths import require_file_number


def require_sound_metadata(meta: LeRobotDatasetMetadata, bounds: Int[np.ndarray, "e 2"], *, whole: bool) -> None:
    """Raise unless actions and states are numbers, and data files and parts of videos belong to episodes without gap
    and overlap.

    Args:
        meta: Metadata of the dataset.
        bounds: First frame of every episode, and one after its last frame.
        whole: Whether every data file must be on this machine.

    Raises:
        FileNotFoundError: If a data file is missing.
        ValueError: If actions or states are no numbers, or videos are too short for their episodes, or overlap.
    """
    _require_numbers(meta)
    if whole:
        _require_data_files(meta)
    for camera in meta.video_keys:
        _require_video_parts(meta, camera, bounds[:, 1] - bounds[:, 0])


def _require_numbers(meta: LeRobotDatasetMetadata) -> None:
    for name in (ACTION, OBS_STATE):
        kind = meta.features.get(name, {}).get("dtype", "float32")
        if not str(kind).startswith(("float", "int", "uint", "bool")):
            raise ValueError(
                f"{Path(meta.root) / INFO_PATH} gives {name!r} the dtype {kind!r}, expected numbers such as float32; "
                "copy the dataset again, or correct the entry"
            )


class TaskCheck:
    """Whether the tasks of a dataset are numbered in order, and every frame has one of them."""

    def __init__(self, meta: LeRobotDatasetMetadata) -> None:
        assert meta.tasks is not None, "a dataset that was opened has its tasks"
        self._root, self._path = Path(meta.root), Path(meta.root) / DEFAULT_TASKS_PATH
        self._numbers = meta.tasks["task_index"].to_numpy()
        self._strange: tuple[int, int] | None = None
        """Number of the first frame without a listed task, and its task."""

    def add(self, task_index: Int[np.ndarray, " f"], *, first: int) -> None:
        """Take the tasks of the next frames, of which the first has the number `first`."""
        strange = (task_index < 0) | (task_index >= len(self._numbers))
        if strange.any() and self._strange is None:
            row = int(strange.argmax())
            self._strange = first + row, int(task_index[row])

    def finish(self) -> None:
        """Raise if the tasks are wrong.

        Raises:
            ValueError: If the tasks are numbered otherwise, or a frame has another number.
        """
        if not np.array_equal(self._numbers, np.arange(len(self._numbers))):
            raise ValueError(f"{self._path} does not number its tasks from 0 on, each once; copy it again")
        if self._strange is not None:
            frame, task = self._strange
            raise ValueError(
                f"frame {frame} of {self._root} has task {task}, and {self._path} lists {len(self._numbers)} tasks; "
                "copy the dataset again"
            )


def _require_data_files(meta: LeRobotDatasetMetadata) -> None:
    assert meta.episodes is not None, "a dataset that was opened has its episodes"
    chunks, numbers = (meta.episodes[f"data/{name}"] for name in ("chunk_index", "file_index"))
    for chunk, number in dict.fromkeys(zip(chunks, numbers, strict=True)):
        for value in (chunk, number):
            require_file_number(value, what=f"the number of a data file in meta/episodes of {meta.root}")
        path = Path(meta.root) / meta.data_path.format(chunk_index=chunk, file_index=number)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing, which meta/episodes names; copy the whole dataset again")


def _require_video_parts(meta: LeRobotDatasetMetadata, camera: str, lengths: Int[np.ndarray, " e"]) -> None:
    """Raise unless the parts of videos that belong to episodes follow each other, and are as long as the episodes."""
    assert meta.episodes is not None, "a dataset that was opened has its episodes"
    columns = [f"videos/{camera}/{n}" for n in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")]
    chunk, file, start, end = (np.asarray(meta.episodes[name], dtype=np.float64) for name in columns)
    half = 0.5 / meta.fps
    # Episodes are written one after the other, so a part that begins before the last one ended is another episode's.
    follows = (chunk[1:] == chunk[:-1]) & (file[1:] == file[:-1])
    overlaps = np.concatenate([[False], follows & ~(start[1:] >= end[:-1] - half)])
    wrong = ~(start >= -half) | ~(end - start >= (lengths - 1) / meta.fps - half) | ~np.isfinite(end) | overlaps
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"meta/episodes of {meta.root} says that episode {row} of {lengths[row]} frames is in the video of "
            f"{camera} from {start[row]:.6g} to {end[row]:.6g} s, which is too short, overlaps another episode or is "
            "out of order; copy the dataset again, or record it anew"
        )
