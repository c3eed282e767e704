"""Write files and folders completely or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_directory(directory: Path | str, *, replace_if_holds: str | None = None) -> Iterator[Path]:
    """Yield a scratch folder that becomes `directory` when the block ends without an error.

    Args:
        directory: Folder to create.
        replace_if_holds: Name of a file; an existing `directory` that holds it is replaced instead of refused.

    Raises:
        FileExistsError: If `directory` exists and may not be replaced; raised before anything is written.
    """
    directory = Path(directory)
    refuse_existing(directory, replace_if_holds=replace_if_holds)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as scratch:
        folder = Path(scratch) / "new"
        folder.mkdir()
        yield folder
        if directory.exists():
            directory.rename(Path(scratch) / "old")
        folder.rename(directory)


def refuse_existing(directory: Path | str, *, replace_if_holds: str | None = None) -> None:
    """Raise if `directory` may not be written, before any work is done for it.

    Raises:
        FileExistsError: If it exists, is not empty and does not hold the file `replace_if_holds`.
        NotADirectoryError: If it would lie below a file.
        PermissionError: If it would lie in a folder that may not be written.
    """
    directory = Path(directory)
    _require_place(directory)
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    if replace_if_holds is None or not (directory / replace_if_holds).is_file():
        raise FileExistsError(f"{directory} already exists; remove it or choose another folder")


def _require_place(directory: Path) -> None:
    """Raise unless `directory` can be made, or replaced, where it is to lie."""
    place = next(parent for parent in Path(os.path.abspath(directory)).parents if parent.exists())
    if not place.is_dir():
        raise NotADirectoryError(f"{directory} cannot be made, since {place} is a file; choose another folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f"{directory} cannot be made, since {place} may not be written; choose another folder")


def write_json(path: Path | str, values: Mapping[str, object]) -> None:
    """Write `values` to `path` in one rename, so that a reader never meets half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
