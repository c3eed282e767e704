"""Windows of actions of image datasets are read without decoding images, and items stay LeRobot's."""

from __future__ import annotations

import pickle
from pathlib import Path
from unittest.mock import patch

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from PIL import PngImagePlugin

from lerobot_policy_felix_bundle.policies.common.window_reads import ColumnsReadAlone, read_columns_alone
from tiny_datasets import create_dataset

WINDOW = 5


def opened(root: Path) -> LeRobotDataset:
    dataset = create_dataset(root, video=False)
    steps = [step / dataset.fps for step in range(WINDOW)]
    return LeRobotDataset(dataset.repo_id, root=root, delta_timestamps={"action": steps})


def test_items_are_the_same_and_decode_one_image_instead_of_one_per_action(tmp_path: Path) -> None:
    dataset = opened(tmp_path / "images")
    decode = PngImagePlugin.PngImageFile.load
    with patch.object(PngImagePlugin.PngImageFile, "load", autospec=True, side_effect=decode) as decoded:
        before = dataset[1]
        read_columns_alone(dataset.meta)
        as_usual, decoded.call_count = decoded.call_count, 0
        after = dataset[1]
        assert decoded.call_count < as_usual / 3
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(value, after[key]) if isinstance(value, torch.Tensor) else value == after[key]


def test_rows_reach_worker_processes_and_are_wrapped_once(tmp_path: Path) -> None:
    dataset = opened(tmp_path / "images")
    read_columns_alone(dataset.meta)
    read_columns_alone(dataset.meta)
    copy = pickle.loads(pickle.dumps(dataset.hf_dataset))
    assert isinstance(copy, ColumnsReadAlone)
    assert not isinstance(copy._rows, ColumnsReadAlone)
    assert torch.equal(copy["action"][[2]][0], dataset[2]["action"][0])


def test_datasets_of_videos_are_left_as_they_are(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    dataset = LeRobotDataset(create_dataset(root, video=True).repo_id, root=root)
    read_columns_alone(dataset.meta)
    assert not isinstance(dataset.hf_dataset, ColumnsReadAlone)
