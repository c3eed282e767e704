"""Append rows to a file, each as one line of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path


class JsonLines:
    """Writer that appends rows to the file `path`; every row is in the file when `add` returns.

    Several processes of one machine may append to the same file.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._is_new_line = False

    def add(self, row: Mapping[str, object]) -> None:
        """Append `row` as a line. Values that are not JSON, such as paths, are written as text.

        Raises:
            OSError: If the file cannot be written.
        """
        line = json.dumps(dict(row), default=str) + "\n"
        with self.path.open("ab+", buffering=0) as file:
            # A killed process may have left half a line.
            start = "" if self._is_new_line or _ends_a_line(file.fileno()) else "\n"
            file.write(f"{start}{line}".encode())
        self._is_new_line = True


def _ends_a_line(file: int) -> bool:
    """Whether the open file is empty, or ends with a line break."""
    size = os.fstat(file).st_size
    return size == 0 or os.pread(file, 1, size - 1) == b"\n"
