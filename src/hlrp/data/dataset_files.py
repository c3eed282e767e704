"""The files of a LeRobotDataset on this machine: what is missing, damaged or of an older format, in one sentence.

LeRobot asks the hub for whatever it cannot read, and reports that the hub does not have it. These checks come first and
name the file. They read the JSON files, the footers of the parquet files and the headers of the videos.
"""

from __future__ import annotations

import json
import shlex
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import pyarrow as pa
import pyarrow.parquet as pq
from av.error import FFmpegError
from lerobot.datasets.utils import DEFAULT_TASKS_PATH, EPISODES_DIR, INFO_PATH, STATS_PATH, DatasetInfo
from packaging.version import InvalidVersion, Version

_FORMAT = 3
"""Major version of LeRobot's dataset format that this LeRobot reads."""
_V20_CONVERTER = "python -m lerobot.datasets.v21.convert_dataset_v20_to_v21"
_V21_CONVERTER = "python -m lerobot.scripts.convert_dataset_v21_to_v30"


def require_dataset_files(folder: Path, repo_id: str) -> None:
    """Raise unless `folder` holds a complete LeRobotDataset of the format that this LeRobot reads.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged, or the dataset has another format.
    """
    info_file = folder / INFO_PATH
    values = _read_json(info_file)
    require_format(str(values.get("codebase_version")), repo_id, folder)
    try:
        info = DatasetInfo.from_dict(values)
        columns = [key for key, feature in info.features.items() if feature["dtype"] != "video"]
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ValueError(f"{info_file} does not describe a LeRobotDataset ({error}); {_again(info_file)}") from error
    stats = folder / STATS_PATH
    if not stats.is_file():
        place = shlex.quote(str(folder.resolve()))
        raise FileNotFoundError(
            f"{stats} is missing; copy it again, or compute it with `lerobot-edit-dataset "
            f"--repo_id={shlex.quote(repo_id)} --root={place} --new_root={place} --operation.type=recompute_stats "
            "--operation.overwrite=true --operation.skip_image_video=false`"
        )
    _read_json(stats)
    if info.total_episodes < 1:
        raise ValueError(f"{info_file} counts no episodes; record some, or copy the dataset again")
    _require_parquet(folder / DEFAULT_TASKS_PATH)
    for path in data_files(folder / EPISODES_DIR):
        _require_parquet(path)
    for path in data_files(folder / "data"):
        _require_parquet(path)
        lost = [key for key in columns if key not in pq.read_schema(path).names]
        if lost:
            raise ValueError(f"{path} lacks the column {lost[0]!r} that {INFO_PATH} lists; {_again(path)}")
    for path in _video_files(folder, info):
        _require_video(path)


def require_format(version: str, repo_id: str, folder: Path | None = None) -> None:
    """Raise unless this LeRobot reads datasets of format `version`, such as "v3.0".

    Args:
        version: Format of the dataset.
        repo_id: Its name.
        folder: Where it is; None for a dataset on the hub.

    Raises:
        ValueError: With the commands that convert the dataset, if the format is older.
    """
    where = repo_id if folder is None else str(folder)
    try:
        number = Version(version)
    except InvalidVersion:
        raise ValueError(
            f"{where} has the dataset format {version!r} in {INFO_PATH}, expected v{_FORMAT}.0; copy it again"
        ) from None
    if number.major == _FORMAT:
        return
    if number.major > _FORMAT:
        raise ValueError(f"{where} has the dataset format {version}, which needs a newer LeRobot: update lerobot")
    root = "" if folder is None else f" --root={shlex.quote(str(folder.resolve()))}"
    name = f"--repo-id={shlex.quote(repo_id)}"
    if (number.major, number.minor) == (2, 1):
        raise ValueError(
            f"{where} has LeRobot's older dataset format v2.1; convert it with `{_V21_CONVERTER} {name}{root} "
            "--push-to-hub=false`"
        )
    raise ValueError(
        f"{where} has LeRobot's older dataset format {version}, which takes two steps, the first on the dataset's "
        f"repository on the hub: in an environment with lerobot==0.3.3 run `{_V20_CONVERTER} {name}`, then here "
        f"`{_V21_CONVERTER} {name} --push-to-hub=false`, and name the dataset by its repo id"
    )


def data_files(folder: Path) -> list[Path]:
    """Parquet files of a dataset's folder `data` or `meta/episodes`, in the order in which LeRobot reads them.

    Raises:
        FileNotFoundError: If there is none.
    """
    files = sorted(folder.glob("*/*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no parquet file; copy the whole dataset again")
    return files


def unreadable_file(files: Iterable[Path]) -> Path | None:
    """The first parquet file of which not every row can be read; None if all can."""
    for path in files:
        try:
            for _ in pq.ParquetFile(path).iter_batches():
                pass
        except (pa.ArrowException, OSError):
            return path
    return None


def _again(path: Path) -> str:
    return f"copy {path.name} again, or download the dataset anew"


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; copy the whole dataset again")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON, so it is cut short or damaged ({error}); {_again(path)}"
        ) from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no JSON object; {_again(path)}")
    return values


def _require_parquet(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; copy the whole dataset again")
    try:
        pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} is not a readable parquet file, so it is cut short or damaged; {_again(path)}"
        ) from error


def _require_video(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; copy the videos of the dataset again")
    try:
        with av.open(str(path)) as container:
            has_pictures = len(container.streams.video) > 0
    except FFmpegError as error:
        raise ValueError(f"{path} is not a readable video, so it is cut short or damaged; {_again(path)}") from error
    if not has_pictures:
        raise ValueError(f"{path} has no pictures; {_again(path)}")
    if _is_cut_short(path):
        raise ValueError(f"{path} is shorter than its header says, so it is cut short; {_again(path)}")


def _is_cut_short(path: Path) -> bool:
    """Whether an MP4 file ends inside one of its boxes: LeRobot puts the header first, so it opens even when cut."""
    end, position = path.stat().st_size, 0
    with path.open("rb") as file:
        while position + 8 <= end:
            file.seek(position)
            size, _ = struct.unpack(">I4s", file.read(8))
            if size == 1:  # the size follows as 64 bits
                size = int.from_bytes(file.read(8))
            if size < 8:  # 0: up to the end of the file; anything else is no box, and no matter for this check
                return False
            position += size
    return position > end


def _video_files(folder: Path, info: DatasetInfo) -> list[Path]:
    """Every video that an episode names, each once."""
    cameras = [key for key, feature in info.features.items() if feature["dtype"] == "video"]
    if not cameras:
        return []
    if info.video_path is None:
        raise ValueError(
            f"{folder / INFO_PATH} has cameras with videos but no video_path; {_again(folder / INFO_PATH)}"
        )
    found: dict[Path, None] = {}
    for path in data_files(folder / EPISODES_DIR):
        names = pq.read_schema(path).names
        for camera in cameras:
            columns = [f"videos/{camera}/{name}" for name in ("chunk_index", "file_index")]
            if any(column not in names for column in columns):
                raise ValueError(f"{path} does not say where the videos of {camera} are; {_again(path)}")
            chunks, numbers = (pq.read_table(path, columns=[column]).column(0).to_pylist() for column in columns)
            for chunk, number in zip(chunks, numbers, strict=True):
                name = info.video_path.format(video_key=camera, chunk_index=chunk, file_index=number)
                found[folder / name] = None
    return list(found)
