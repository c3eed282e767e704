"""Read columns of a dataset's data files in chunks, so that memory does not grow with the number of frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hlrp.data.dataset_files import data_files

_CHUNK_ROWS = 1 << 16
"""Largest number of rows that are held at once."""


@dataclass(frozen=True, kw_only=True)
class RowChunk:
    """Consecutive rows of a dataset."""

    first: int
    """Number of the first row, counted over all files."""
    batch: pa.RecordBatch

    def __len__(self) -> int:
        return self.batch.num_rows

    def column(self, name: str) -> np.ndarray:
        """Values of the column `name`."""
        return self.batch.column(name).to_numpy(zero_copy_only=False)

    def lacks_numbers(self, name: str) -> bool:
        """Whether the column `name` has rows without a value, or holds anything but single numbers."""
        column = self.batch.column(name)
        return bool(column.null_count) or not pa.types.is_primitive(column.type)


def row_chunks(folder: Path, columns: Sequence[str]) -> Iterator[RowChunk]:
    """Read `columns` of all rows in a dataset's folder `data`, in LeRobot's order of files and rows.

    Raises:
        FileNotFoundError: If there is no data file.
        ValueError: If a file is damaged or lacks a column.
    """
    first = 0
    for path in data_files(folder):
        for batch in _batches(path, columns):
            if batch.num_rows:
                yield RowChunk(first=first, batch=batch)
                first += batch.num_rows


def _batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    try:
        # Without pre_buffer, pyarrow does not hold the columns of a whole row group.
        with pq.ParquetFile(path, pre_buffer=False) as file:
            lost = [name for name in columns if name not in file.schema_arrow.names]
            if not lost:
                yield from file.iter_batches(_CHUNK_ROWS, columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} cannot be read, so it is cut short or damaged; copy it again, or download the dataset anew"
        ) from error
    if lost:
        raise ValueError(f"{path} lacks the column {lost[0]!r}; copy it again, or download the dataset anew")
