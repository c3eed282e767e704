"""Open a LeRobotDataset, with clear error messages for missing or damaged data, and read its columns."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import torch
from datasets.exceptions import DatasetGenerationError
from httpx import HTTPError
from jaxtyping import Float, Int
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import (
    EPISODES_DIR,
    INFO_PATH,
    BackwardCompatibilityError,
    has_legacy_hub_download_metadata,
)
from lerobot.utils.constants import ACTION, HF_LEROBOT_HOME
from torch import Tensor

from hlrp.data.dataset_files import data_files, require_dataset_files, require_format, unreadable_file
from hlrp.data.dataset_paths import require_safe_templates
from hlrp.data.frame_rows import require_sound_rows
from hlrp.data.source_config import DEFAULT_REPO_ID, DEFAULT_TOLERANCE_S
from hlrp.runtime.checks import require_number

ACTION_VALID = "is_action_valid"
"""Boolean dataset column that is true for frames whose action is known, as `hlrp-combine-datasets` writes it. The name
does not begin with `action`, since LeRobot takes each column whose name does for an action."""
ACTION_KNOWN = "is_action_known"
"""Boolean column of datasets from `hlrp-pseudo-label`: false for actions that were predicted from video."""
CONFIDENCE = "action_confidence"
"""Column of datasets from `hlrp-pseudo-label`: probability that an action is right; 1 for known actions. LeRobot
lists it among a policy's outputs, since its name begins with `action`; its policies learn `action` alone."""


def value_names(feature: Mapping[str, Any]) -> list[str] | None:
    """Names of the values of a vector column in the metadata of a dataset; None if they have none."""
    names = feature.get("names")
    if isinstance(names, Mapping):  # as in {"motors": ["shoulder", "elbow"]}
        names = next((value for value in names.values() if isinstance(value, Sequence)), None)
    return [str(name) for name in names] if isinstance(names, Sequence) and not isinstance(names, str) else None


def dataset_name(repo_id: str | None, root: Path | str | None) -> str:
    """Name of a dataset in messages, checkpoints and model cards: its repo id if given, else the name of its folder.

    Only the last part of the folder's path is used, so that a published checkpoint does not reveal local paths.
    Characters that a repo id may not contain become dashes, so that LeRobot accepts the name as a repo id.
    """
    if repo_id is not None or root is None:
        return repo_id or DEFAULT_REPO_ID
    return re.sub(r"[^\w.]+|\.{2,}", "-", Path(os.path.abspath(root)).name)[:96].strip("-.") or "dataset"


def open_dataset(
    repo_id: str,
    root: Path | str | None = None,
    *,
    tolerance_s: float = DEFAULT_TOLERANCE_S,
    check_rows: bool = True,
) -> LeRobotDataset:
    """Open a dataset from `root`, from `$HF_LEROBOT_HOME/<repo_id>`, or from the hub, in this order.

    Args:
        repo_id: Name of the dataset.
        root: Folder of the dataset.
        tolerance_s: Largest deviation of the time between two frames from 1 / fps, in seconds.
        check_rows: Whether to read the numbering and time stamps of all rows, to check them.

    Raises:
        FileNotFoundError: If `root` is given and is no LeRobotDataset, a file is missing, or the hub cannot be reached.
        ValueError: If a file is damaged, the dataset has an older format, or its rows are not the frames that its
            metadata promises.
    """
    require_number("tolerance_s", tolerance_s, above=0)
    if root is not None and not (Path(root) / INFO_PATH).is_file():
        raise FileNotFoundError(
            f"{root} is not a LeRobotDataset: expected {Path(root) / INFO_PATH}; check the path, or "
            "record one with hlrp-collect-demos"
        )
    folder = HF_LEROBOT_HOME / repo_id if root is None else Path(root)
    is_local = root is not None or ((folder / INFO_PATH).is_file() and not has_legacy_hub_download_metadata(folder))
    if is_local:
        require_dataset_files(folder, repo_id)
        if check_rows:
            require_sound_rows(_metadata(repo_id, folder), whole=True, tolerance_s=tolerance_s)
    try:
        dataset = LeRobotDataset(repo_id, root=root, return_uint8=True, tolerance_s=tolerance_s)
    except (ConnectionError, HTTPError) as error:  # LeRobot asks the hub for files that it does not find on disk
        missing = (
            f"dataset {repo_id!r} is neither at {HF_LEROBOT_HOME / repo_id} nor reachable on the hub; "
            "pass its folder as root"
            if root is None
            else f"{root} lacks files of the data or videos that its metadata names; copy the whole folder again"
        )
        raise FileNotFoundError(f"{missing} ({error})") from error
    except BackwardCompatibilityError:
        require_format("v2.1", repo_id)
        raise
    except NotImplementedError:  # LeRobot raises this for formats before v2.1
        require_format("v2.0", repo_id)
        raise
    except DatasetGenerationError as error:  # the `datasets` library could not read the rows
        path = unreadable_file(data_files(folder / "data")) or folder / "data"
        raise ValueError(
            f"{path} does not hold the columns that {INFO_PATH} lists, or is damaged; copy it again, or download the "
            f"dataset anew ({error.__cause__ or error})"
        ) from error
    if not is_local:
        require_safe_templates({"data_path": dataset.meta.data_path, "video_path": dataset.meta.video_path})
    if not is_local and check_rows:
        require_sound_rows(dataset.meta, whole=True, tolerance_s=tolerance_s)
    return dataset


def _metadata(repo_id: str, folder: Path) -> LeRobotDatasetMetadata:
    """Metadata of a dataset in a local `folder`, whose files `require_dataset_files` has checked before."""
    try:
        return LeRobotDatasetMetadata(repo_id, root=folder)
    except (DatasetGenerationError, KeyError, ValueError, OSError) as error:
        path = unreadable_file(data_files(folder / EPISODES_DIR)) or folder / EPISODES_DIR
        raise ValueError(
            f"{path} does not hold the columns of LeRobot's dataset format, or is damaged; copy it again, or download "
            f"the dataset anew ({error.__cause__ or error})"
        ) from error


def require_camera(meta: LeRobotDatasetMetadata, camera: str | None) -> str:
    """The dataset key of `camera`; the only camera if `camera` is None.

    Raises:
        ValueError: If the dataset lacks the camera or has none, or has several and none was named.
    """
    cameras = [key for key in meta.camera_keys if key not in meta.depth_keys]
    if camera is not None:
        if camera not in cameras:
            raise ValueError(f"dataset {meta.repo_id} has no camera {camera!r}; it has {', '.join(cameras) or 'none'}")
        return camera
    if not cameras:
        raise ValueError(f"dataset {meta.repo_id} has no camera; record one with images or videos")
    if len(cameras) != 1:
        raise ValueError(f"dataset {meta.repo_id} has {len(cameras)} cameras; name one of {', '.join(cameras)}")
    return cameras[0]


def episode_bounds(meta: LeRobotDatasetMetadata) -> Int[Tensor, "e 2"]:
    """Start and end of every episode as absolute frame indices: its first frame, and one after its last frame."""
    episodes = meta.episodes
    assert episodes is not None, "a dataset that was opened has its episodes"
    bounds = zip(episodes["dataset_from_index"], episodes["dataset_to_index"], strict=True)
    return torch.tensor([(int(first), int(end)) for first, end in bounds], dtype=torch.int64)


def episode_of_frame(bounds: Int[Tensor, "e 2"]) -> Int[Tensor, " f"]:
    """Episode number of every frame; `bounds` as from `episode_bounds`."""
    return torch.repeat_interleave(torch.arange(len(bounds)), bounds[:, 1] - bounds[:, 0])


def frame_of_episode(bounds: Int[Tensor, "e 2"]) -> Int[Tensor, " f"]:
    """Number of every frame within its episode, from 0; `bounds` as from `episode_bounds`."""
    return torch.arange(int((bounds[:, 1] - bounds[:, 0]).sum())) - bounds[episode_of_frame(bounds), 0]


def has_actions(dataset: LeRobotDataset) -> bool:
    """Whether the dataset has an `action` column."""
    return ACTION in dataset.meta.features


def read_actions(dataset: LeRobotDataset) -> Float[Tensor, "f a"]:
    """Read the `action` column as float32 in dataset units. Matrices are flattened; values that are not finite stay.

    If the dataset has the column `ACTION_VALID`, actions that are not known are NaN.

    Raises:
        ValueError: If actions are not numbers, a row is empty, or the column `ACTION_VALID` is not boolean.
    """
    columns = dataset.hf_dataset.data
    actions = numeric_rows(columns.column(ACTION), ACTION, of=dataset.root).float()
    if not marks_known_actions(dataset.meta):
        return actions
    known = numeric_rows(columns.column(ACTION_VALID), ACTION_VALID, of=dataset.root) == 1
    return actions.where(known, torch.nan)


def marks_known_actions(meta: LeRobotDatasetMetadata) -> bool:
    """Whether the dataset says in the boolean column `ACTION_VALID` which frames have a known action.

    Raises:
        ValueError: If the column is not boolean.
    """
    if ACTION_VALID not in meta.features:
        return False
    require_flag(meta, ACTION_VALID)
    return True


def require_flag(meta: LeRobotDatasetMetadata, name: str) -> None:
    """Raise if column `name`, which says where actions are known, does not hold one boolean per frame.

    Raises:
        ValueError: With the type of the column.
    """
    feature = meta.features[name]
    if feature["dtype"] != "bool" or tuple(feature["shape"]) != (1,):
        raise ValueError(
            f"action_valid_column={name} has dtype {feature['dtype']} and shape {tuple(feature['shape'])}, expected "
            "one bool per frame that is true where its action is known"
        )


def read_vectors(meta: LeRobotDatasetMetadata, name: str) -> Float[Tensor, "f _"] | None:
    """Read a column of numbers as float64, with one row per frame in the order of the absolute frame index.

    If only some episodes were downloaded, the frames of all others are NaN. The result is None without any data file.

    Raises:
        ValueError: If the column does not hold numbers, or `index` is not that of the dataset's frames.
    """
    files = sorted((Path(meta.root) / "data").rglob("*.parquet"))
    if not files:
        return None
    table = pads.dataset([str(path) for path in files]).to_table(columns=["index", name])
    index, rows = (
        torch.from_numpy(table.column("index").to_numpy().copy()),
        numeric_rows(table.column(name), name, of=meta.root),
    )
    if len(index) and (index.min() < 0 or index.max() >= meta.total_frames or index.bincount().max() > 1):
        raise ValueError(
            f"column 'index' of {meta.root} does not number its {meta.total_frames} frames from 0 on, each once; write "
            "the dataset again with LeRobot's tools"
        )
    found = torch.full((meta.total_frames, rows.shape[1]), torch.nan, dtype=torch.float64)
    found[index] = rows
    return found


def numeric_rows(column: pa.ChunkedArray, name: str, *, of: Path | str = "a dataset") -> Float[Tensor, "f _"]:
    """Convert a column of numbers, vectors or matrices to float64, flattened to one row per frame.

    Args:
        column: Column of any integer, boolean or floating-point type; single numbers become vectors of length 1.
        name: Name of the column, for messages.
        of: Folder of the dataset, for messages.

    Raises:
        ValueError: If the column holds something else than numbers, empty rows, or rows of different lengths.
    """
    values, rows = column.combine_chunks(), len(column)
    nested = (pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray, pa.ExtensionArray)
    while isinstance(values, nested) and not values.null_count:
        if isinstance(values, pa.ExtensionArray):  # how LeRobot stores a matrix
            values = values.storage
            continue
        if not isinstance(values, pa.FixedSizeListArray) and len(values.value_lengths().unique()) > 1:
            raise ValueError(
                f"rows of column {name!r} of {of} differ in length; a robot's vectors keep theirs throughout"
            )
        values = values.flatten()
    if values.null_count:
        raise ValueError(
            f"column {name!r} of {of} has {values.null_count} empty values; write NaN where one is not known"
        )
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise ValueError(f"column {name!r} of {of} holds values of type {kind}, expected numbers; convert or remove it")
    flat = torch.from_numpy(values.to_numpy(zero_copy_only=False).astype("float64"))
    return flat.reshape(rows, len(flat) // max(rows, 1))


def read_instructions(dataset: LeRobotDataset) -> list[str]:
    """Language instruction of every frame.

    Raises:
        ValueError: If a task of the dataset is empty.
    """
    sentences = task_sentences(dataset)
    return [sentences[int(i)] for i in dataset.hf_dataset.data.column("task_index").to_pylist()]


def task_sentences(dataset: LeRobotDataset) -> dict[int, str]:
    """Language instruction of every task, by the number in the column `task_index`.

    Raises:
        ValueError: If a task of the dataset is empty.
    """
    tasks = dataset.meta.tasks
    assert tasks is not None, "a dataset that was opened has its tasks"
    sentences = [str(name) for name in tasks.index]
    for number, sentence in enumerate(sentences):
        if not sentence.strip():
            raise ValueError(
                f"task {number} of dataset {dataset.meta.repo_id} has an empty instruction; name it with "
                "lerobot-edit-dataset --operation.type=modify_tasks"
            )
    return dict(zip((int(number) for number in tasks["task_index"]), sentences, strict=True))
