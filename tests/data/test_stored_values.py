from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from hlrp.data.rewritten_dataset import NewColumn, write_with_columns
from hlrp.data.stored_values import as_stored


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("int64", [0.9, -0.9, 2.4, 1e30, -1e30], [1, -1, 2, np.nextafter(2.0**63, 0), -(2.0**63)]),
        ("int8", [126.6, 200.0, -200.0], [127, 127, -128]),
        ("uint8", [-3.0, 254.6, 300.0], [0, 255, 255]),
        ("bool", [0.0, 0.49, 0.5, 1.0], [False, False, True, True]),
        ("float32", [0.25, -1.5], [0.25, -1.5]),
    ],
)
def test_numbers_are_rounded_to_what_a_column_holds(dtype: str, values: list[float], expected: list[float]) -> None:
    stored = as_stored(np.array(values), dtype)
    assert stored.dtype == dtype
    np.testing.assert_array_equal(stored, np.array(expected).astype(dtype))


def test_whole_numbers_stay_exact() -> None:
    large = np.array([2**62 + 1, -(2**62) - 1])
    np.testing.assert_array_equal(as_stored(large, "int64"), large)


def test_statistics_are_those_of_the_rounded_values(image_dataset_root: Path, tmp_path: Path) -> None:
    dataset = LeRobotDataset("local/x", root=image_dataset_root)
    values = np.linspace(0, 3, dataset.num_frames)[:, None] * [1, -1]
    feature = {"dtype": "int64", "shape": (2,), "names": None}
    write_with_columns(dataset, tmp_path / "new", {"action": NewColumn(values, feature)})
    table = pq.read_table(sorted((tmp_path / "new/data").rglob("*.parquet"))).sort_by("index")
    stored = np.array(table.column("action").to_pylist())
    np.testing.assert_array_equal(stored, np.rint(values))
    stats = LeRobotDataset("local/x", root=tmp_path / "new").meta.stats
    assert stats is not None
    np.testing.assert_allclose(stats["action"]["mean"], stored.mean(0), rtol=1e-6)
    np.testing.assert_allclose(stats["action"]["std"], stored.std(0), rtol=1e-6)
