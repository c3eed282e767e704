"""Faster items of image datasets: windows of actions are read without decoding the images beside them.

For every frame of an action window, LeRobot 0.6 reads the whole row and then drops all but the action. If images are
stored in the rows, this decodes one image per camera and action. Here a column is read alone. Items stay the same.
Videos are not in the rows, so that their datasets need no change.
"""

from __future__ import annotations

from typing import Any

import datasets
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from .run_episodes import datasets_of_run


class ColumnsReadAlone:
    """Rows of a dataset, whose columns (`rows["action"]`) read no other column; all else is as before.

    Args:
        rows: Rows of LeRobot's reader.
    """

    def __init__(self, rows: datasets.Dataset) -> None:
        self._rows = rows
        self._columns: dict[str, Any] = {}

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return self._rows[key]
        if key not in self._columns:
            self._columns[key] = self._rows.select_columns([key])[key]
        return self._columns[key]

    def __len__(self) -> int:
        return len(self._rows)

    def __getattr__(self, name: str) -> Any:
        if name == "_rows":  # not set yet while the object is unpickled
            raise AttributeError(name)
        return getattr(self._rows, name)


def read_columns_alone(dataset_meta: Any) -> None:
    """Let the datasets of this run read columns alone if they store images; one that does so already stays unchanged.

    Args:
        dataset_meta: Metadata of the run's dataset, of the same object as the dataset's.
    """
    for dataset in datasets_of_run(dataset_meta):
        if isinstance(dataset, LeRobotDataset) and dataset.meta.image_keys:
            reader: Any = dataset.reader
            if isinstance(reader.hf_dataset, datasets.Dataset):
                reader.hf_dataset = ColumnsReadAlone(reader.hf_dataset)
