"""Write files and folders completely or not at all, one process at a time."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

logger = logging.getLogger(__name__)

_claimed: dict[Path, bool] = {}
"""What this process is the sole writer of, and whether the file system could confirm it."""


@contextmanager
def sole_writer(target: Path | str) -> Iterator[bool]:
    """Let no other process claim the file or folder `target` inside the block.

    The claim is a lock on the file `.<name>.lock` beside `target`. It ends with the block, or with the process, however
    that ends.

    Yields:
        Whether the claim is certain: False on a file system without locks, where a warning says so.

    Raises:
        FileExistsError: If another process, or this one, has claimed `target` already.
    """
    target = _absolute(target)
    if target in _claimed:  # where locks are emulated, as on NFS, a second one of the same process would be granted
        raise FileExistsError(f"this process is writing {target} already")
    path = target.with_name(f".{target.name}.lock")
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock, is_certain = _lock(path, target)
        _claimed[target] = is_certain
        try:
            yield is_certain
        finally:
            del _claimed[target]
            path.unlink(missing_ok=True)  # while the lock is held: whoever opened the file before sees that it is gone
            os.close(lock)
    finally:
        for parent in made:  # a claim that came to nothing leaves no empty folders
            with suppress(OSError):
                parent.rmdir()


def _lock(path: Path, target: Path) -> tuple[int, bool]:
    """An open, locked descriptor of `path`, and whether the file system knows locks."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock, 1000, 0).decode(errors="replace").strip() or "another process"
            os.close(lock)
            raise FileExistsError(
                f"{owner} is writing {target}; wait until it has ended, or choose another folder"
            ) from None
        except OSError as error:
            logger.warning(f"{target.parent} cannot be locked ({error}): let no other run write to {target}")
            return lock, False
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), path.stat()):
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
                return lock, True
        os.close(lock)  # its owner removed it between our opening and our locking it


@contextmanager
def new_directory(directory: Path | str, *, replace_if_holds: str | None = None, create: bool = True) -> Iterator[Path]:
    """Yield a scratch folder that becomes `directory` when the block ends without an error.

    The scratch folder lies inside `.<name>.partial`, beside `directory`. What a process that was killed has left there
    is removed first, or brought to its end if it was about to replace `directory`.

    Args:
        directory: Folder to create.
        replace_if_holds: Name of a file; an existing `directory` that holds it is replaced instead of refused.
        create: Whether the scratch folder exists already in the block; False for writers that create it themselves.

    Raises:
        FileExistsError: If `directory` exists and may not be replaced, or another process is writing it; raised before
            anything is written.
    """
    refuse_existing(directory, replace_if_holds=replace_if_holds)
    directory = _absolute(directory)
    with nullcontext(_claimed[directory]) if directory in _claimed else sole_writer(directory) as is_certain:
        scratch = directory.with_name(f".{directory.name}.partial")
        if scratch.exists() and not is_certain:
            raise FileExistsError(f"{scratch} is of a run that was killed, or still runs; remove it if none runs")
        _settle(scratch, directory)
        refuse_existing(directory, replace_if_holds=replace_if_holds)  # again, now that nobody else writes it
        folder = scratch / "new"
        (folder if create else scratch).mkdir(parents=True)
        try:
            yield folder
            _flush(folder)
            if directory.exists():
                directory.rename(scratch / "old")
            folder.rename(directory)
            _flush_names(directory.parent)
        finally:
            _settle(scratch, directory)


def _settle(scratch: Path, directory: Path) -> None:
    """Remove `scratch`; first finish the replacement of `directory` where it was interrupted between its two renames,
    of which the first is made only once the new folder is complete."""
    if (scratch / "old").exists() and (scratch / "new").exists() and not directory.exists():
        (scratch / "new").rename(directory)
    shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def new_file(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path`; what is written there replaces `path` when the block ends without an error.

    Until then `path` stays what it was: the new content is on the disk before its name changes. One process at a time:
    if several might write `path`, claim it, or the folder it lies in, with `sole_writer`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.partial")
    try:
        yield scratch
        _flush(scratch)
        scratch.replace(path)
        _flush_names(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Bring a file, or all files of a folder, from the memory of the system to the disk."""
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if file.is_dir():
            _flush_names(file)
        else:
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def _flush_names(folder: Path) -> None:
    """Bring the names of the files in `folder` to the disk, where its file system can do that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _absolute(path: Path | str) -> Path:
    return Path(os.path.abspath(path))  # `resolve` would replace a link by what it points to


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
    with new_file(path) as scratch:
        scratch.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
