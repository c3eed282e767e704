"""The table of latent labels on disk: one parquet file with a row per frame, written and read in pieces.

A file is written in row groups of a fixed size. Its bytes depend on its rows alone, not on the pieces in which they
were added, and reading or writing it takes the memory of one row group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int
from torch import Tensor

CODES, VECTORS, VALID, LAQ_MARK = "latent_codes", "latent_vectors", "latent_valid", "latent_laq"
LABEL_COLUMNS = (CODES, VECTORS, VALID, LAQ_MARK)
"""Columns that `--output_dataset` adds to a dataset."""
ROWS_OF_A_GROUP = 16_384
"""Rows of a row group: 8 MiB of vectors with four slots of width 32."""


@dataclass(frozen=True, kw_only=True)
class LabelRows:
    """Labels of consecutive frames; the fields are those of `hlrp.data.labels.LatentLabels`."""

    index: Int[Tensor, " f"]
    """Absolute frame index."""
    episode_index: Int[Tensor, " f"]
    frame_index: Int[Tensor, " f"]
    codes: Int[Tensor, "f q"]
    vectors: Float[Tensor, "f g"]
    valid: Bool[Tensor, " f"]

    def to_table(self) -> pa.Table:
        """The rows as an Arrow table."""
        codes, vectors = self.codes.contiguous(), self.vectors.contiguous()
        return pa.table(
            {
                "index": self.index.numpy(),
                "episode_index": self.episode_index.numpy(),
                "frame_index": self.frame_index.numpy(),
                CODES: pa.FixedSizeListArray.from_arrays(codes.reshape(-1).numpy(), codes.shape[1]),
                VECTORS: pa.FixedSizeListArray.from_arrays(vectors.reshape(-1).numpy(), vectors.shape[1]),
                VALID: self.valid.numpy(),
            }
        )


def label_schema(*, num_codes: int, width: int) -> pa.Schema:
    """Columns of the table, for labels of `num_codes` codes whose vectors have `width` numbers in all."""
    return pa.schema(
        [
            ("index", pa.int64()),
            ("episode_index", pa.int64()),
            ("frame_index", pa.int64()),
            (CODES, pa.list_(pa.int64(), num_codes)),
            (VECTORS, pa.list_(pa.float32(), width)),
            (VALID, pa.bool_()),
        ]
    )


class LabelWriter:
    """Writer of a table of latent labels, used as a context; the file is complete when the context ends.

    Args:
        path: New parquet file.
        num_codes: Codes of a label, q.
        width: Numbers of all vectors of a label, g.
        facts: Texts that are stored in the head of the file.
    """

    def __init__(self, path: Path, *, num_codes: int, width: int, facts: Mapping[str, str] | None = None) -> None:
        schema = label_schema(num_codes=num_codes, width=width)
        if facts is not None:
            schema = schema.with_metadata(dict(facts))
        self._schema = schema
        # Dictionary encoding is left to the codes: float vectors never repeat, so it would cost time and save nothing.
        dictionaries: Any = [f"{CODES}.list.element"]  # pyarrow's annotation knows only True and False
        self._file = pq.ParquetWriter(
            path,
            schema,
            use_dictionary=dictionaries,
            write_page_checksum=True,  # a flipped bit would be a wrong label
        )
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def __enter__(self) -> LabelWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._rows:
            self._write(self._rows)
        self._file.close()

    def add(self, rows: LabelRows | pa.Table) -> None:
        """Append rows."""
        table = rows.to_table() if isinstance(rows, LabelRows) else rows
        self._waiting.append(table.replace_schema_metadata(self._schema.metadata))
        self._rows += len(table)
        while self._rows >= ROWS_OF_A_GROUP:
            self._write(ROWS_OF_A_GROUP)

    def _write(self, count: int) -> None:
        table = pa.concat_tables(self._waiting)
        self._file.write_table(table.slice(0, count), row_group_size=count)
        # Copied, since a slice would keep the whole table in memory.
        self._waiting = [pa.table(table.slice(count).combine_chunks())] if len(table) > count else []
        self._rows = len(table) - count


def row_groups(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The row groups of a table of labels, one after the other."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, columns=columns)


def column_digests(tables: Iterable[pa.Table]) -> dict[str, str]:
    """SHA-256 of every column of labels that come in pieces, by name; the same however they are divided into pieces."""
    digests: dict[str, Any] = {}
    for table in tables:
        for name in table.column_names:
            digest = digests.setdefault(name, hashlib.sha256())
            for chunk in table.column(name).chunks:
                values = chunk if pa.types.is_primitive(chunk.type) else chunk.flatten()
                digest.update(values.to_numpy(zero_copy_only=False).tobytes())
    return {name: digest.hexdigest() for name, digest in digests.items()}
