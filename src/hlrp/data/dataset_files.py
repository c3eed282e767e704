"""Check the files of a local LeRobotDataset, and name the file that is missing, damaged or of an older format.

LeRobot itself asks the hub for each file that it cannot read, and then reports only that the hub does not have the
dataset. These checks run first. They read the JSON files, the parquet footers and the video headers.
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

from hlrp.data.dataset_paths import require_file_number, require_inside, require_safe_templates
from hlrp.runtime.checks import require_number
from hlrp.runtime.size_limits import HIGHEST_FPS

_FORMAT = 3
"""Major version of LeRobot's dataset format that the installed LeRobot reads."""
_V20_CONVERTER = "python -m lerobot.datasets.v21.convert_dataset_v20_to_v21"
_V21_CONVERTER = "python -m lerobot.scripts.convert_dataset_v21_to_v30"


def require_dataset_files(folder: Path, repo_id: str) -> None:
    """Raise unless `folder` holds a complete LeRobotDataset in the format that the installed LeRobot reads.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged, or the dataset has another format.
    """
    info_file = folder / INFO_PATH
    values = _read_json(info_file)
    version = values.get("codebase_version")
    require_format(version if isinstance(version, str) else f"{version!r} (no text)", repo_id, folder)
    try:
        require_number("fps", values.get("fps"), above=0, limit=HIGHEST_FPS)
        require_safe_templates(values)
        info = DatasetInfo.from_dict(values)
        columns = [key for key, feature in info.features.items() if feature["dtype"] != "video"]
        pictures = [key for key, feature in info.features.items() if feature["dtype"] == "image"]
        for key in info.features:
            require_inside(key, what="the name of a feature")
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
        _require_pictures(path, pictures)
    for path in _video_files(folder, info):
        _require_video(path)


def require_format(version: str, repo_id: str, folder: Path | None = None) -> None:
    """Raise unless the installed LeRobot reads datasets of format `version`, such as "v3.0".

    Args:
        version: Format of the dataset.
        repo_id: Repo id of the dataset.
        folder: Folder of the dataset; None for a dataset on the hub.

    Raises:
        ValueError: If the format is another one; for an older format, the message has the commands that convert it.
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
        FileNotFoundError: If the folder holds no parquet file.
    """
    files = sorted(folder.glob("*/*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no parquet file; copy the whole dataset again")
    return files


def unreadable_file(files: Iterable[Path]) -> Path | None:
    """The first parquet file with a row that cannot be read; None if all rows of all files can be read."""
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


def _require_pictures(path: Path, cameras: list[str]) -> None:
    """Raise if a picture of `cameras` is not stored in the file itself, by the statistics in its footer.

    A picture may instead have a path, which the `datasets` library would open wherever it leads.
    """
    footer = pq.read_metadata(path)
    places = {f"{camera}.bytes": camera for camera in cameras}
    for group in range(footer.num_row_groups):
        for number in range(footer.num_columns):
            column = footer.row_group(group).column(number)
            camera, facts = places.get(column.path_in_schema), column.statistics
            if camera is not None and facts is not None and facts.has_null_count and facts.null_count:
                raise ValueError(
                    f"{path} lacks {facts.null_count} pictures of {camera}: they are empty or elsewhere; record the "
                    f"dataset with LeRobot's own writer, or {_again(path)}"
                )


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
    """Whether an MP4 file ends inside one of its boxes. LeRobot writes the header first, so that such a file opens."""
    end, position = path.stat().st_size, 0
    with path.open("rb") as file:
        while position + 8 <= end:
            file.seek(position)
            size, _ = struct.unpack(">I4s", file.read(8))
            if size == 1:  # the size follows as 64 bits
                size = int.from_bytes(file.read(8))
            if size < 8:  # 0 stands for "up to the end of the file"; other values are not MP4 boxes
                return False
            position += size
    return position > end


def _video_files(folder: Path, info: DatasetInfo) -> list[Path]:
    """Paths of all video files to which the episodes' metadata refers, each once."""
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
                for value in (chunk, number):
                    require_file_number(value, what=f"the number of a video file of {camera} in {path}")
                name = info.video_path.format(video_key=camera, chunk_index=chunk, file_index=number)
                found[folder / name] = None
    return list(found)
