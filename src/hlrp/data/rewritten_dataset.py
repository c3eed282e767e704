"""Write a copy of a LeRobotDataset with new or changed columns of numbers; videos are linked, never encoded again.

Shapes: values the values of one column in a frame.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Shaped
from lerobot.datasets.compute_stats import aggregate_stats, get_feature_stats
from lerobot.datasets.feature_utils import get_hf_features_from_features
from lerobot.datasets.io_utils import load_stats, write_stats
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import EPISODES_DIR, INFO_PATH, STATS_PATH

from hlrp.data.dataset import episode_bounds
from hlrp.data.dataset_files import data_files
from hlrp.data.stored_values import as_stored
from hlrp.storage.files import link_or_copy, new_directory

_LINKED = ("videos", "images")
"""Folders whose files are linked or copied as they are."""
_DEFAULT_STATISTICS = ("min", "max", "mean", "std", "count")


@runtime_checkable
class Column(Protocol):
    """Values of a column in every frame, in memory or on disk; real numbers are rounded for a type of whole numbers."""

    @property
    def feature(self) -> dict[str, Any]:
        """Description of the column in `meta/info.json`: dtype, shape and names."""
        ...

    def rows(self, first: int, end: int) -> Shaped[np.ndarray, "f values"]:
        """Values of the frames from `first` to `end`."""
        ...


@dataclass(frozen=True)
class NewColumn:
    """Values of a column, in memory; see `Column`."""

    values: Shaped[np.ndarray, "f values"]
    feature: dict[str, Any]

    def rows(self, first: int, end: int) -> Shaped[np.ndarray, "f values"]:
        """Values of the frames from `first` to `end`."""
        return self.values[first:end]


def _has_statistics(column: Column) -> bool:
    """Whether the dataset stores statistics of the column; they would mean nothing for booleans."""
    return column.feature["dtype"] != "bool"


def _stored(column: Column, first: int, end: int) -> Shaped[np.ndarray, "f values"]:
    """Values of the frames from `first` to `end` in the type of the column."""
    return as_stored(column.rows(first, end), column.feature["dtype"])


def _statistics(column: Column, first: int, end: int) -> dict[str, np.ndarray]:
    """LeRobot's statistics of the values that are stored in the frames from `first` to `end`."""
    return get_feature_stats(_stored(column, first, end).astype(np.float64), axis=0, keepdims=False)


def write_with_columns(
    dataset: LeRobotDataset, root: Path, columns: Mapping[str, Column], *, beside: Mapping[str, str] | None = None
) -> None:
    """Write a copy of `dataset` to the folder `root` with `columns`, which replace columns of the same name.

    Only the folders and metadata that LeRobot defines are copied. Files of other tools are left out, such as latent
    labels, which may not fit the changed columns.

    Args:
        dataset: The dataset to copy.
        root: Folder of the copy, which must not exist.
        columns: New columns by name.
        beside: Texts of further files of the copy, by path within `root`.

    Raises:
        FileExistsError: If `root` exists.
    """
    source = Path(dataset.root)
    features = {**dataset.meta.features, **{name: column.feature for name, column in columns.items()}}
    with new_directory(root) as new:
        for folder in _LINKED:
            for path in sorted((source / folder).rglob("*")):
                if path.is_file():
                    link_or_copy(path, new / path.relative_to(source))
        for path in data_files(source / "data"):
            _rewrite_rows(path, new / path.relative_to(source), columns, features)
        of_episodes: list[dict[str, dict[str, np.ndarray]]] = []
        for path in data_files(source / EPISODES_DIR):
            of_episodes += _rewrite_episodes(path, new / path.relative_to(source), columns, dataset)
        for path in sorted((source / "meta").glob("*")):
            if path.is_file() and path.name not in (Path(INFO_PATH).name, Path(STATS_PATH).name):
                shutil.copyfile(path, new / path.relative_to(source))
        info = json.loads((source / INFO_PATH).read_text(encoding="utf-8"))
        info["features"] |= {
            name: {**column.feature, "shape": list(column.feature["shape"])} for name, column in columns.items()
        }
        (new / INFO_PATH).write_text(json.dumps(info, indent=4), encoding="utf-8")
        of_columns = aggregate_stats(of_episodes) if of_episodes[0] else {}
        kept = {name: value for name, value in (load_stats(source) or {}).items() if name not in columns}
        write_stats({**kept, **of_columns}, new)
        for name, text in (beside or {}).items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_text(text, encoding="utf-8")


def _rewrite_rows(
    source: Path, target: Path, columns: Mapping[str, Column], features: Mapping[str, dict[str, Any]]
) -> None:
    """Copy a file of rows, one row group after the other, with `columns` in place of those of the same name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    hf_features = get_hf_features_from_features(dict(features))
    schema = hf_features.arrow_schema
    rows = pq.ParquetFile(source)
    with pq.ParquetWriter(target, schema, compression="snappy") as writer:
        for number in range(rows.num_row_groups):
            group = rows.read_row_group(number)
            index = group.column("index").to_numpy()
            arrays = [
                _array(columns[field.name], int(index[0]), len(index), field.name, hf_features)
                if field.name in columns
                else group.column(field.name).cast(field.type)
                for field in schema
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _array(column: Column, first: int, count: int, name: str, hf_features: datasets.Features) -> pa.ChunkedArray:
    """Consecutive rows of a column, in the Arrow type of the dataset."""
    shape = tuple(column.feature["shape"])
    values = _stored(column, first, first + count)
    values = values.reshape(-1, *(() if shape == (1,) else shape))
    one = datasets.Dataset.from_dict({name: values}, features=datasets.Features({name: hf_features[name]}))
    return one.data.column(name)


def _rewrite_episodes(
    source: Path, target: Path, columns: Mapping[str, Column], dataset: LeRobotDataset
) -> list[dict[str, dict[str, np.ndarray]]]:
    """Copy a file of episode metadata, with the statistics of `columns`, which are returned for every episode."""
    target.parent.mkdir(parents=True, exist_ok=True)
    table, bounds = pq.read_table(source), episode_bounds(dataset.meta)
    episodes = table.column("episode_index").to_pylist()
    measured = {name: column for name, column in columns.items() if _has_statistics(column)}
    found = [{name: _statistics(c, *bounds[episode].tolist()) for name, c in measured.items()} for episode in episodes]
    for name in columns:
        prefix = f"stats/{name}/"
        old = [key for key in table.column_names if key.startswith(prefix)]
        table = table.drop_columns(old)
        if name not in measured:
            continue
        # LeRobot joins statistics of several datasets only if all have the same ones; older datasets lack quantiles.
        for key in [key.removeprefix(prefix) for key in old] or _statistic_names(table.column_names):
            values = pa.array([np.asarray(one[name][key]).tolist() for one in found])
            table = table.append_column(f"{prefix}{key}", values)
    pq.write_table(table, target)
    return found


def _statistic_names(names: list[str]) -> list[str]:
    """Names of the statistics that the other columns of the dataset have."""
    found = dict.fromkeys(name.rpartition("/")[2] for name in names if name.startswith("stats/timestamp/"))
    return list(found) or list(_DEFAULT_STATISTICS)
