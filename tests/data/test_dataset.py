from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pytest
import torch
from httpx import ConnectError
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.dataset_tools import add_features

from hlrp.data import dataset as module
from hlrp.data.dataset import (
    ACTION_VALID,
    episode_bounds,
    episode_of_frame,
    has_actions,
    numeric_rows,
    open_dataset,
    read_actions,
    read_instructions,
    require_camera,
)
from hlrp.data.episode_split import split_episodes
from hlrp.data.known_actions import known_actions
from tiny_datasets import CAMERA, LENGTHS, TASKS, create_dataset, moving_square


def test_the_bounds_of_episodes_cover_every_frame_once(image_dataset_root: Path) -> None:
    dataset = open_dataset("local/x", image_dataset_root)
    bounds = episode_bounds(dataset.meta)
    assert (bounds[:, 1] - bounds[:, 0]).tolist() == list(LENGTHS)
    assert bounds[0, 0] == 0
    assert torch.equal(bounds[1:, 0], bounds[:-1, 1])
    assert torch.equal(
        episode_of_frame(bounds), torch.tensor([dataset[i]["episode_index"] for i in range(len(dataset))])
    )


def test_actions_are_the_column_that_was_recorded(image_dataset_root: Path) -> None:
    dataset = open_dataset("local/x", image_dataset_root)
    recorded = [torch.from_numpy(moving_square(n, seed=i)[2]) for i, n in enumerate(LENGTHS)]
    assert has_actions(dataset)
    assert torch.equal(read_actions(dataset), torch.cat(recorded))


def test_a_mark_of_known_actions_that_is_not_boolean_is_refused(image_dataset_root: Path, tmp_path: Path) -> None:
    dataset = open_dataset("local/x", image_dataset_root)
    marks = np.ones((len(dataset), 1), dtype=np.int64)
    feature = {"dtype": "int64", "shape": (1,), "names": None}
    marked = add_features(dataset, {ACTION_VALID: (marks, feature)}, tmp_path / "data", "local/marked")
    message = "action_valid_column=is_action_valid has dtype int64 .* expected one bool per frame"
    with pytest.raises(ValueError, match=message):
        read_actions(marked)
    with pytest.raises(ValueError, match=message):
        known_actions(marked.meta)


def test_episodes_that_are_labelled_at_random_are_not_those_that_the_quantizer_holds_out(
    image_dataset_root: Path,
) -> None:
    # Otherwise neither LAQ nor VLA would have seen the video of the few labelled episodes.
    meta = open_dataset("local/x", image_dataset_root).meta
    episode = episode_of_frame(episode_bounds(meta))

    def labelled_are_held_out(seed: int) -> bool:
        labelled = episode[known_actions(meta, fraction=0.3, seed=seed)].unique()
        return torch.equal(labelled, split_episodes(len(LENGTHS), held_out=0.3, seed=seed)[1])

    assert sum(labelled_are_held_out(seed) for seed in range(20)) < 10


def test_every_frame_has_its_own_instruction(image_dataset_root: Path) -> None:
    dataset = open_dataset("local/x", image_dataset_root)
    expected = [TASKS[number % 2] for number, length in enumerate(LENGTHS) for _ in range(length)]
    assert read_instructions(dataset) == expected == [dataset[i]["task"] for i in range(len(dataset))]


def test_a_video_without_actions_is_a_dataset_too(tmp_path: Path) -> None:
    create_dataset(tmp_path / "data", lengths=(3, 4), with_actions=False)
    dataset = open_dataset("local/x", tmp_path / "data")
    assert not has_actions(dataset)
    assert episode_bounds(dataset.meta).tolist() == [[0, 3], [3, 7]]


@pytest.mark.parametrize("sentence", ["", "   "])
def test_an_empty_instruction_is_refused(tmp_path: Path, sentence: str) -> None:
    create_dataset(tmp_path / "data", lengths=(2, 2), tasks=("Push the square", sentence))
    dataset = open_dataset("local/x", tmp_path / "data")
    with pytest.raises(ValueError, match="task 1 of dataset local/x has an empty instruction; name it with"):
        read_instructions(dataset)


def test_a_missing_folder_is_an_error_and_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing is not a LeRobotDataset: expected .*info.json"):
        open_dataset("local/x", tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    with pytest.raises(FileNotFoundError, match="is not a LeRobotDataset"):
        open_dataset("local/x", tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["photo.png"]


def test_a_dataset_that_is_nowhere_is_an_error_and_creates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lerobot.datasets.dataset_metadata.HF_LEROBOT_HOME", tmp_path)
    monkeypatch.setattr("lerobot.datasets.dataset_metadata.HF_LEROBOT_HUB_CACHE", tmp_path / "hub")
    monkeypatch.setattr(module, "HF_LEROBOT_HOME", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'nobody/nothing' is neither at .*nobody/nothing nor reachable"):
        open_dataset("nobody/nothing")
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_without_its_data_files_is_an_error(tmp_path: Path) -> None:
    create_dataset(tmp_path / "data", lengths=(2, 2))
    for path in (tmp_path / "data" / "data").rglob("*.parquet"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"data holds no parquet file; copy the whole dataset again"):
        open_dataset("local/x", tmp_path / "data")


def test_without_a_network_an_unknown_dataset_is_an_error_of_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: object, **kwargs: object) -> NoReturn:
        raise ConnectError("Connection refused")

    monkeypatch.setattr(module, "LeRobotDataset", no_network)
    with pytest.raises(FileNotFoundError, match=r"nor reachable on the hub; pass its folder as root .*refused"):
        open_dataset("nobody/nothing")


def test_the_only_camera_needs_no_name(image_dataset_root: Path) -> None:
    meta = LeRobotDatasetMetadata("local/x", root=image_dataset_root)
    assert require_camera(meta, None) == require_camera(meta, CAMERA) == CAMERA


def test_a_camera_that_is_not_there_is_refused_with_those_that_are(image_dataset_root: Path) -> None:
    meta = LeRobotDatasetMetadata("local/x", root=image_dataset_root)
    with pytest.raises(ValueError, match=f"dataset local/x has no camera 'wrist'; it has {CAMERA}"):
        require_camera(meta, "wrist")


def test_one_of_several_cameras_must_be_named(tmp_path: Path) -> None:
    cameras = ("observation.images.left", "observation.images.right")
    create_dataset(tmp_path / "data", lengths=(2,), cameras=cameras)
    meta = LeRobotDatasetMetadata("local/x", root=tmp_path / "data")
    with pytest.raises(ValueError, match=f"has 2 cameras; name one of {', '.join(cameras)}"):
        require_camera(meta, None)
    assert require_camera(meta, cameras[1]) == cameras[1]


def test_a_dataset_without_cameras_says_so(tmp_path: Path) -> None:
    create_dataset(tmp_path / "data", lengths=(2,), cameras=())
    meta = LeRobotDatasetMetadata("local/x", root=tmp_path / "data")
    assert json.loads((tmp_path / "data" / "meta" / "info.json").read_text())["total_frames"] == 2
    with pytest.raises(ValueError, match="dataset local/x has no camera; record one with images or videos"):
        require_camera(meta, None)


# ---- Columns of numbers ----


@pytest.mark.parametrize(
    ("column", "rows"),
    [
        (pa.array([1, 2], pa.int64()), [[1], [2]]),
        (pa.array([True, False]), [[1], [0]]),
        (pa.array([[1.5, 2], [3, 4]], pa.list_(pa.float32())), [[1.5, 2], [3, 4]]),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.uint8(), 2)), [[1, 2], [3, 4]]),
        (pa.array([[[1], [2]], [[3], [4]]], pa.list_(pa.list_(pa.float64()))), [[1, 2], [3, 4]]),
    ],
)
def test_any_column_of_numbers_is_a_row_per_frame(column: pa.Array, rows: list[list[float]]) -> None:
    found = numeric_rows(pa.chunked_array([column[:1], column[1:]]), "action")
    assert found.dtype == torch.float64
    assert found.tolist() == rows


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([["a"], ["b"]]), "column 'action' of a dataset holds values of type string, expected numbers"),
        (pa.array([[1.0], None]), "column 'action' of a dataset has 1 empty values; write NaN"),
        (pa.array([[1.0], [1.0, 2.0]]), "rows of column 'action' of a dataset differ in length"),
    ],
)
def test_a_column_of_something_else_is_refused_by_name(column: pa.Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        numeric_rows(pa.chunked_array([column]), "action")
