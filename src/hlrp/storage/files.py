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
"""Files and folders that this process has locked by `sole_writer`, and whether the file system supports locks."""


@contextmanager
def sole_writer(target: Path | str) -> Iterator[bool]:
    """Lock the file or folder `target` against other processes that use this function, for the time of the block.

    The lock is on the file `.<name>.lock` beside `target`. It ends with the block, or with the process, even if the
    process is killed.

    Yields:
        Whether the lock is effective: false, after a warning, on a file system without locks.

    Raises:
        FileExistsError: If another process, or this one, has already locked `target`.
    """
    target = _absolute(target)
    if target in _claimed:  # some file systems, such as NFS, would grant the same process a second lock
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
            # Unlink before the lock is released: a process that has opened the file meanwhile finds it gone (`_lock`).
            path.unlink(missing_ok=True)
            os.close(lock)
    finally:
        for parent in made:  # remove the folders created above if they are still empty
            with suppress(OSError):
                parent.rmdir()


def _lock(path: Path, target: Path) -> tuple[int, bool]:
    """Open and lock the file `path`; returns its descriptor, and whether the file system supports locks."""
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
        os.close(lock)  # the previous owner removed the file after it was opened here: try again


@contextmanager
def new_directory(directory: Path | str, *, replace_if_holds: str | None = None, create: bool = True) -> Iterator[Path]:
    """Yield a scratch folder that becomes `directory` if the block ends without an error.

    The scratch folder is in `.<name>.partial`, beside `directory`. If a killed process has left such a folder, it is
    removed first; if that process was just replacing `directory`, the replacement is completed.

    Args:
        directory: Folder to create.
        replace_if_holds: Name of a file; an existing `directory` that holds this file is replaced.
        create: Whether to create the scratch folder; false if the code in the block creates it.

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
        refuse_existing(directory, replace_if_holds=replace_if_holds)  # again: it may have appeared before the lock
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
    """Remove `scratch`; if the replacement of `directory` was interrupted between its two renames, complete it first.

    The first rename is done only after the new folder is complete, so that completing is safe.
    """
    if (scratch / "old").exists() and (scratch / "new").exists() and not directory.exists():
        (scratch / "new").rename(directory)
    shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def new_file(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path`; the file written there replaces `path` if the block ends without an error.

    `path` is unchanged until the new content is completely on disk. Only one process may do this at a time: if several
    might write `path`, lock it or its folder by `sole_writer`.
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
    """Write a file, or all files of a folder, from the operating system's cache to the disk (fsync)."""
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if file.is_dir():
            _flush_names(file)
        else:
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def _flush_names(folder: Path) -> None:
    """Write the directory entries of `folder` to the disk (fsync), if the file system supports this."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _absolute(path: Path | str) -> Path:
    return Path(os.path.abspath(path))  # `resolve` would replace a link by what it points to


def refuse_existing(directory: Path | str, *, replace_if_holds: str | None = None) -> None:
    """Raise if the folder `directory` cannot be created or replaced; call this before long work whose result it holds.

    Raises:
        FileExistsError: If `directory` exists, is not empty and does not hold the file `replace_if_holds`.
        NotADirectoryError: If a parent of `directory` is a file.
        PermissionError: If the parent folder is not writable.
    """
    directory = Path(directory)
    _require_place(directory)
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    if replace_if_holds is None:
        raise FileExistsError(f"{directory} already exists; remove it or choose another folder")
    if not (directory / replace_if_holds).is_file():
        raise FileExistsError(
            f"{directory} already exists and has no {replace_if_holds}, so it is not replaced; remove it or choose "
            "another folder"
        )


def _require_place(directory: Path) -> None:
    """Raise unless the nearest existing parent of `directory` is a writable folder."""
    place = next(parent for parent in Path(os.path.abspath(directory)).parents if parent.exists())
    if not place.is_dir():
        raise NotADirectoryError(f"{directory} cannot be made, since {place} is a file; choose another folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f"{directory} cannot be made, since {place} may not be written; choose another folder")


def link_or_copy(source: Path, target: Path) -> None:
    """Give the file `source` a second name, or copy it where the file system does not allow this."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or a file of another user
        shutil.copyfile(source, target)


def write_json(path: Path | str, values: Mapping[str, object]) -> None:
    """Write `values` as JSON to `path`, atomically: a reader never sees an incomplete file."""
    with new_file(path) as scratch:
        scratch.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
