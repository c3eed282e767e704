from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from hlrp.data.dataset import open_dataset
from hlrp.data.dataset_paths import require_file_number, require_safe_templates
from tiny_datasets import CAMERA

NAME = "local/moving_square"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
DATA = "data/chunk-000/file-000.parquet"


@pytest.mark.parametrize("name", ["video_path", "data_path"])
@pytest.mark.parametrize(
    "template",
    [
        "../{chunk_index}/{file_index}",
        "a/../../{chunk_index}",
        "/etc/{chunk_index}",
        "",
        "{chunk_index:>999999999}",
        "{chunk_index:{file_index}}",
        "{chunk_index.__class__}",
        "{chunk_index!r}",
        "{0}",
        "{nothing}",
        "{chunk_index",
        7,
    ],
)
def test_templates_that_lead_elsewhere_are_refused(name: str, template: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a path inside the dataset's folder"):
        require_safe_templates({name: template})


def test_lerobots_own_templates_pass() -> None:
    require_safe_templates(
        {
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        }
    )
    require_safe_templates({"video_path": None})
    require_file_number(0, what="a file")


@pytest.fixture
def root(video_dataset_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(video_dataset_root, tmp_path / "videos"))


def replace_column(file: Path, name: str, values: list[Any]) -> None:
    table = pq.read_table(file)
    kind, place = table.schema.field(name), table.schema.get_field_index(name)
    pq.write_table(table.set_column(place, kind, pa.array(values, type=kind.type)), file)


@pytest.mark.parametrize(("entry", "value"), [("video_path", "../{video_key}.mp4"), ("fps", 1e30), ("total_frames", 7)])
def test_an_info_file_that_contradicts_the_rest_is_refused(root: Path, entry: str, value: Any) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), entry: value}))
    with pytest.raises(ValueError, match=r"info\.json"):
        open_dataset(NAME, root)


def test_actions_that_are_no_numbers_are_refused(root: Path) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    info["features"]["action"]["dtype"] = "string"
    path.write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"gives 'action' the dtype 'string', expected numbers"):
        open_dataset(NAME, root)


@pytest.mark.parametrize("how", ["shifted", "overlapping", "swapped", "too short"])
def test_parts_of_videos_follow_each_other(root: Path, how: str) -> None:
    names = [f"videos/{CAMERA}/{edge}_timestamp" for edge in ("from", "to")]
    start, end = (np.array(pq.read_table(root / EPISODES).column(name).to_pylist()) for name in names)
    match how:
        case "shifted":
            start[1] -= 0.5
        case "overlapping":
            start[2], end[2] = start[1], end[1]
        case "swapped":
            start[[1, 2]], end[[1, 2]] = start[[2, 1]], end[[2, 1]]
        case _:
            end[-1] -= 0.5
    for name, values in zip(names, (start, end), strict=True):
        replace_column(root / EPISODES, name, values.tolist())
    with pytest.raises(ValueError, match="is too short, overlaps another episode or is out of order"):
        open_dataset(NAME, root)


def test_a_frame_without_a_task_is_refused(root: Path) -> None:
    tasks = pq.read_table(root / DATA).column("task_index").to_pylist()
    replace_column(root / DATA, "task_index", [99, *tasks[1:]])
    with pytest.raises(ValueError, match=r"frame 0 of .* has task 99"):
        open_dataset(NAME, root)


def test_a_picture_outside_the_file_is_not_opened(image_dataset_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(image_dataset_root, tmp_path / "images"))
    pictures = pq.read_table(root / DATA).column(CAMERA).to_pylist()
    replace_column(root / DATA, CAMERA, [{"bytes": None, "path": "/etc/hostname"}, *pictures[1:]])
    with pytest.raises(ValueError, match=f"lacks 1 pictures of {CAMERA}"):
        open_dataset(NAME, root)


def test_a_whole_dataset_opens(root: Path) -> None:
    assert isinstance(open_dataset(NAME, root), LeRobotDataset)
