"""Which files of a folder are films: video files of a data source of stage 1."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lerobot.datasets.utils import INFO_PATH

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (
    ".avi", ".mkv", ".mov", ".mp4", ".webm", ".3g2", ".3gp", ".asf", ".divx", ".f4v", ".flv", ".gif", ".m2ts", ".m4v",
    ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".qt", ".ts", ".vob", ".wmv",
)  # fmt: skip
_OTHER_VIDEO_SUFFIXES = (
    ".av1",
    ".dv",
    ".h264",
    ".h265",
    ".hevc",
    ".ivf",
    ".m1v",
    ".m2v",
    ".mjpeg",
    ".rm",
    ".rmvb",
    ".y4m",
)
"""Suffixes of video files that are skipped with a warning, since most of these files have no time stamps."""


def find_videos(folder: Path) -> list[Path]:
    """Films in `folder` and its subfolders, sorted by path; messages name what is left out.

    Hidden folders, such as a wastebasket, are not entered. A file that is reached by several paths is one film.

    Raises:
        FileNotFoundError: If `folder` does not exist or holds no film.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"video_dir {folder} is not a folder")
    content = _content(folder)
    found = [path for path in content.files if _is_read(path)]
    other = [
        path
        for path in content.files
        if not _is_read(path) and path.suffix.lower() in (*VIDEO_SUFFIXES, *_OTHER_VIDEO_SUFFIXES)
    ]
    again = [path for path in content.links if _is_read(path)]
    _report_left_out(folder, other, f"only {', '.join(VIDEO_SUFFIXES)} are read")
    _report_left_out(folder, again, "they are links to films that are read anyway")
    _report_left_out(folder, content.datasets, "a LeRobotDataset is a source of its own (dataset_root)")
    if not found:
        raise FileNotFoundError(f"video_dir {folder} holds no video; expected files in {', '.join(VIDEO_SUFFIXES)}")
    return found


def video_names(folder: Path | str) -> list[str]:
    """Paths, within `folder`, of all films in it and in its subfolders, also of those that cannot be read."""
    return [path.relative_to(folder).as_posix() for path in _content(Path(folder)).files if _is_read(path)]


def _is_read(path: Path) -> bool:
    # macOS leaves a "._film.mp4" beside "film.mp4" on other disks.
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def _report_left_out(folder: Path, paths: Sequence[Path], reason: str) -> None:
    if paths:
        names = ", ".join(str(path.relative_to(folder)) for path in paths)
        logger.warning(f"left out of {folder}, for {reason}: {names}")


class _Content(NamedTuple):
    """Paths below a folder, sorted."""

    files: list[Path]
    """One path of every file."""
    links: list[Path]
    """Further paths of these files."""
    datasets: list[Path]
    """Folders of LeRobotDatasets, which are not entered: one of their videos holds several episodes."""


def _content(folder: Path) -> _Content:
    """Search `folder` and the folders in it, also those that links lead to, each once, and none that is hidden."""
    entered: set[str] = set()
    paths: list[Path] = []
    datasets: list[Path] = []
    starts = [folder]
    for start in starts:  # links to folders are appended below, so that a folder is rather entered by its own path
        for place, folders, files in os.walk(start):
            here, real = Path(place), os.path.realpath(place)
            is_dataset = here != folder and (here / INFO_PATH).is_file()
            if is_dataset and real not in entered:
                datasets.append(here)
            if is_dataset or real in entered:
                folders.clear()  # os.walk enters the folders that are left in this list
                files.clear()
            entered.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            starts.extend(here / name for name in folders if (here / name).is_symlink())
            paths.extend(path for path in (here / name for name in files) if path.is_file())
    return _Content(*_each_once(paths), sorted(datasets))


def _each_once(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """One path of every file, which is no symbolic link if possible, and all other paths."""
    kept: dict[tuple[int, int], Path] = {}
    links: list[Path] = []
    for path in sorted(paths, key=lambda path: (path.is_symlink(), path)):
        status = path.stat()
        if kept.setdefault((status.st_dev, status.st_ino), path) != path:
            links.append(path)
    return sorted(kept.values()), sorted(links)
