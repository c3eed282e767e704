"""Write labels as columns of a copy of a dataset, whose videos are linked and whose rows are copied in pieces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from hlrp.data.label_file import CODES, LAQ_MARK, ROWS_OF_A_GROUP, VALID, VECTORS
from hlrp.data.labels import INFO_FILE, LabelMetadata
from hlrp.data.rewritten_dataset import write_with_columns
from hlrp.storage.artefacts import read_json


class _StoredColumn:
    """A column of a table of labels on disk; see `Column`."""

    def __init__(self, file: pq.ParquetFile, name: str, feature: dict[str, Any]) -> None:
        self.feature = feature
        self._group = lru_cache(maxsize=2)(lambda number: file.read_row_group(number, columns=[name]).column(0))

    def rows(self, first: int, end: int) -> Shaped[np.ndarray, "f values"]:
        """Values of the frames from `first` to `end`."""
        numbers = range(first // ROWS_OF_A_GROUP, (end - 1) // ROWS_OF_A_GROUP + 1)
        chunks = [chunk for number in numbers for chunk in self._group(number).chunks]
        column = pa.chunked_array(chunks).slice(first - numbers[0] * ROWS_OF_A_GROUP, end - first).combine_chunks()
        values = column if pa.types.is_primitive(column.type) else column.flatten()
        return values.to_numpy(zero_copy_only=False).reshape(end - first, -1)


class _Mark:
    """The column `latent_laq`, which has the same value in every frame."""

    def __init__(self, mark: int, feature: dict[str, Any]) -> None:
        self.feature = feature
        self._mark = mark

    def rows(self, first: int, end: int) -> Shaped[np.ndarray, "f values"]:
        """Values of the frames from `first` to `end`."""
        return np.full((end - first, 1), self._mark)


def label_features(metadata: LabelMetadata) -> dict[str, dict[str, Any]]:
    """Descriptions of the columns of labels that `metadata` describes, by name, as in `meta/info.json`."""
    return {
        CODES: {**_feature("int64", metadata.spec.num_codes), "info": _of_columns(metadata).to_dict()},
        VECTORS: _feature("float32", metadata.width),
        VALID: _feature("bool", 1),
        LAQ_MARK: _feature("int64", 1),
    }


def write_labelled_dataset(
    dataset: LeRobotDataset,
    table: Path,
    metadata: LabelMetadata,
    root: Path,
    *,
    beside: Mapping[str, str] | None = None,
) -> None:
    """Write a copy of `dataset` to the folder `root`, with labels as columns; older label columns are replaced.

    Args:
        dataset: The dataset that was labelled.
        table: File of the labels of all frames.
        metadata: Description of the labels.
        root: Folder of the copy.
        beside: Texts of further files of the copy, by path within `root`.

    Raises:
        FileExistsError: If `root` exists and is not empty.
    """
    features = label_features(metadata)
    with pq.ParquetFile(table) as file:
        columns = {name: _StoredColumn(file, name, features[name]) for name in (CODES, VECTORS, VALID)}
        mark = _Mark(metadata.mark, features[LAQ_MARK])
        write_with_columns(dataset, root, {**columns, LAQ_MARK: mark}, beside=beside)


def is_labelled_dataset(root: Path, metadata: LabelMetadata) -> bool:
    """Whether `root` holds a dataset with label columns that are described by `metadata`."""
    path = root / INFO_FILE
    feature = read_json(path).get("features", {}).get(CODES, {}) if path.is_file() else {}
    return feature.get("info") == _of_columns(metadata).to_dict()


def _of_columns(metadata: LabelMetadata) -> LabelMetadata:
    """`metadata` without what differs between datasets: LeRobot merges datasets only if their features are equal."""
    return replace(metadata, frames=None, skipped_episodes={})


def _feature(dtype: str, size: int) -> dict[str, object]:
    """LeRobot's feature description of a column with `size` numbers per row."""
    return {"dtype": dtype, "shape": (size,), "names": None}
