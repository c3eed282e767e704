"""`lerobot-train` with all rows and pictures of an image dataset in memory, decoded once: `python -m
benchmarks.train_in_memory` takes the options of lerobot-train.

LeRobot decodes the pictures of the whole action window of every item. With small pictures, this takes longer than a
training step, and it would be repeated in every cell of a benchmark. The items are the same as LeRobot's.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import torch
from lerobot.datasets.dataset_reader import DatasetReader
from lerobot.scripts.lerobot_train import main
from PIL import Image
from torch import Tensor

from hlrp.data.dataset import numeric_rows


class InMemoryRows:
    """Rows of a dataset as tensors in memory, with the access that LeRobot's reader uses.

    Args:
        rows: Rows of LeRobot's reader, with images in the data files.
    """

    def __init__(self, rows: datasets.Dataset) -> None:
        self._rows = rows
        self._columns = {name: _column(rows, name) for name in rows.column_names}

    def __len__(self) -> int:
        return len(self._rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rows, name)

    def __getitem__(self, key: int | str | Sequence[int]) -> Any:
        if isinstance(key, str):
            return self._columns[key]
        if isinstance(key, int):
            return {name: column[[key]][0] for name, column in self._columns.items()}
        return {name: column[key] for name, column in self._columns.items()}


class _Column:
    """Values of one column; pictures are kept as bytes and returned as LeRobot returns them: float, in [0, 1]."""

    def __init__(self, values: Tensor) -> None:
        self._values = values

    def __getitem__(self, index: Sequence[int]) -> list[Tensor]:
        found = self._values[list(index)]
        return list(found.float() / 255 if found.dtype == torch.uint8 else found)


def _column(rows: datasets.Dataset, name: str) -> _Column:
    if isinstance(rows.features[name], datasets.Image):
        cells = rows.data.column(name).to_pylist()
        pictures = np.stack([np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB")) for cell in cells])
        return _Column(torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous())
    sample = rows[0][name]
    values = numeric_rows(rows.data.column(name), name).to(sample.dtype)
    return _Column(values.reshape(len(rows), *sample.shape))


def keep_in_memory() -> None:
    """Let LeRobot's reader keep the rows of every dataset that it opens from now on in memory."""
    load = DatasetReader._load_hf_dataset
    DatasetReader._load_hf_dataset = lambda self: InMemoryRows(load(self))  # pyright: ignore[reportAttributeAccessIssue]


if __name__ == "__main__":
    keep_in_memory()
    main()
