"""Write files and folders completely or not at all, one process at a time."""

from __future__ import annotations

import ctypes
import fcntl
import json
import logging
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from fnmatch import fnmatchcase
from pathlib import Path

logger = logging.getLogger(__name__)

_claimed: set[Path] = set()
"""Files and folders that this process has locked by `sole_writer`."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Arguments of Linux's renameat2: paths are relative to the current folder; exchange both files."""


@contextmanager
def sole_writer(target: Path | str) -> Iterator[bool]:
    """Lock the file or folder `target` against other processes that use this function, for the time of the block.

    The lock is on the file `.<name>.lock` beside `target`. It ends with the block, or with the process, even if the
    process is killed. What a killed process has left beside `target` is removed when the lock is taken; if that
    process was just replacing `target`, the replacement is completed.

    Yields:
        Whether the lock is effective: false, after a warning, on a file system without locks.

    Raises:
        FileExistsError: If another process, or this one, has already locked `target`; without an effective lock, if
            something is left beside `target` that another process may still write.
        NotADirectoryError: If a parent of `target` is a file.
        PermissionError: If the parent folder is not writable.
    """
    _require_place(Path(target))
    target = _absolute(target)
    if target in _claimed:  # some file systems, such as NFS, would grant the same process a second lock
        raise FileExistsError(f"this process is writing {target} already")
    path = target.with_name(f".{target.name}.lock")
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock, is_certain = _lock(path, target)
        _claimed.add(target)
        try:
            _clear_leftovers(target, is_certain)
            yield is_certain
        finally:
            _claimed.remove(target)
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


def _clear_leftovers(target: Path, is_certain: bool) -> None:
    """Remove the folders that a killed process has left beside `target`; see `sole_writer`."""
    for folder in (_beside(target, "partial"), _beside(target, "scratch")):
        if folder.exists() and not is_certain:
            raise FileExistsError(f"{folder} is of a run that was killed, or still runs; remove it if none runs")
    _settle(_beside(target, "partial"), target)
    shutil.rmtree(_beside(target, "scratch"), ignore_errors=True)


@contextmanager
def new_directory(directory: Path | str, *, replaces: Sequence[str] = (), create: bool = True) -> Iterator[Path]:
    """Yield a scratch folder that becomes `directory` if the block ends without an error.

    The scratch folder is in `.<name>.partial`, beside `directory`. An existing `directory` is exchanged for the new one
    in one step, where the file system allows this; it is removed afterwards.

    Args:
        directory: Folder to create.
        replaces: Which existing `directory` may be replaced, see `refuse_existing`; empty for none.
        create: Whether to create the scratch folder; false if the code in the block creates it.

    Raises:
        FileExistsError: If `directory` exists and may not be replaced, or another process is writing it; raised before
            anything is written.
    """
    refuse_existing(directory, replaces=replaces)
    directory = _absolute(directory)
    with nullcontext() if directory in _claimed else sole_writer(directory):
        refuse_existing(directory, replaces=replaces)  # again: it may have appeared before the lock
        scratch = _beside(directory, "partial")
        folder = scratch / "new"
        (folder if create else scratch).mkdir(parents=True)
        try:
            yield folder
            _flush(folder)
            if not (directory.exists() and _exchange(folder, directory)):
                if directory.exists():
                    directory.rename(scratch / "old")
                folder.rename(directory)
            _flush_names(directory.parent)
        finally:
            _settle(scratch, directory)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders trade places in one step; false where the operating or file system cannot do this."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)  # some C libraries lack it
    paths = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
    return renameat2 is not None and renameat2(*paths, _RENAME_EXCHANGE) == 0


def _settle(scratch: Path, directory: Path) -> None:
    """Remove `scratch`; if the replacement of `directory` was interrupted between its two renames, complete it first.

    The first rename is done only after the new folder is complete, so that completing is safe. If it fails, the old
    folder is put back.
    """
    old, new = scratch / "old", scratch / "new"
    if old.exists() and new.exists() and not directory.exists():
        try:
            new.rename(directory)
        except OSError:
            old.rename(directory)
    shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def scratch_directory(target: Path | str) -> Iterator[Path]:
    """Yield an empty folder for intermediate files, `.<name>.scratch` beside `target`; it is removed afterwards.

    The caller must have locked `target` by `sole_writer`, which removes the folder of a killed process.
    """
    target = _absolute(target)
    assert target in _claimed, f"{target} is not locked"
    folder = _beside(target, "scratch")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def discard(folder: Path, *, of: Path | str) -> None:
    """Remove `folder`, which is beside the target `of` and belongs to it, in one step.

    The caller must have locked the target by `sole_writer`: if this process is killed meanwhile, the next one removes
    the rest.
    """
    with scratch_directory(of) as scratch:
        folder.rename(scratch / folder.name)


@contextmanager
def new_file(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path`; the file written there replaces `path` if the block ends without an error.

    `path` is unchanged until the new content is completely on disk. Only one process may do this at a time: if several
    might write `path`, lock it or its folder by `sole_writer`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = _beside(path, "partial")
    try:
        yield scratch
        _flush(scratch)
        put_in_place(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def put_in_place(scratch: Path, path: Path) -> None:
    """Rename the file `scratch`, which is complete on disk, to `path`, which it replaces; both are in one folder."""
    scratch.replace(path)
    _flush_names(path.parent)


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


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f".{path.name}.{what}")


def refuse_existing(directory: Path | str, *, replaces: Sequence[str] = ()) -> None:
    """Raise if the folder `directory` cannot be created or replaced; call this before long work whose result it holds.

    Args:
        directory: Folder to create or replace.
        replaces: Patterns of names. An existing folder may be replaced if it holds a file with the first of these
            names, and nothing but what the patterns match; empty if no folder may be replaced.

    Raises:
        FileExistsError: If `directory` exists, is not empty and may not be replaced; or is a link or a mount point.
        NotADirectoryError: If a parent of `directory` is a file.
        PermissionError: If the parent folder is not writable.
    """
    directory = Path(directory)
    _require_place(directory)
    if directory.is_symlink():
        raise FileExistsError(f"{directory} is a link; name the folder {directory.readlink()} that it points to")
    names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    if directory.exists() and (names or not directory.is_dir()):
        _refuse_content(directory, names, replaces)
    if os.path.ismount(directory):
        raise FileExistsError(f"{directory} is a mount point, which cannot be replaced; choose a folder inside it")


def _refuse_content(directory: Path, names: Sequence[str], replaces: Sequence[str]) -> None:
    """Raise unless `directory`, which holds `names`, may be replaced; see `refuse_existing`."""
    if not replaces:
        raise FileExistsError(f"{directory} already exists; remove it or choose another folder")
    if not (directory / replaces[0]).is_file():
        raise FileExistsError(
            f"{directory} already exists and has no {replaces[0]}, so it is not replaced; remove it or choose another "
            "folder"
        )
    foreign = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in replaces)]
    if foreign:
        raise FileExistsError(
            f"{directory} also holds {', '.join(foreign[:3])}{' …' * (len(foreign) > 3)}, which would be deleted with "
            "it, so it is not replaced; move that away or choose another folder"
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
