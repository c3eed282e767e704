"""Names of a dataset's files, as `meta/info.json` describes them: they stay inside the dataset's folder.

LeRobot fills in the templates `data_path` and `video_path` with Python's `str.format`, which can read attributes and
make texts of any length, and then opens the file wherever it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from string import Formatter
from typing import Any

from hlrp.runtime.size_limits import HIGHEST_FILE_NUMBER

_FIELDS = {"data_path": {"chunk_index", "file_index"}, "video_path": {"video_key", "chunk_index", "file_index"}}
"""Fields that each template may have."""
_SPEC = re.compile(r"(0?\d{1,2})?d?")
"""Format specifications that pad a number with zeros to at most 99 places."""


def require_safe_templates(info: Mapping[str, Any]) -> None:
    """Raise unless the templates of file names in `info` lead to files inside the dataset's folder.

    Args:
        info: Content of `meta/info.json`. A template that is missing or null passes.

    Raises:
        ValueError: If a template leads elsewhere; the message quotes it.
    """
    for name, fields in _FIELDS.items():
        template = info.get(name)
        if template is None:
            continue
        wanted = f"{name} must be a path inside the dataset's folder made of {', '.join(sorted(fields))}"
        try:
            parts = list(Formatter().parse(template))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{wanted}, got {template!r} ({error})") from error
        for _, field, spec, conversion in parts:
            if field is not None and (field not in fields or conversion or not _SPEC.fullmatch(spec or "")):
                raise ValueError(f"{wanted}, each with at most a width such as :03d, got {template!r}")
        require_inside(template, what=name)


def require_inside(path: str, *, what: str) -> None:
    """Raise unless `path` is relative and has no part `..`.

    Links are followed, since the hub's cache consists of them.

    Raises:
        ValueError: If `path` leads elsewhere; the message calls it `what`.
    """
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or not path:
        raise ValueError(f"{what} must be a path inside the dataset's folder, got {path!r}")


def require_file_number(number: object, *, what: str) -> None:
    """Raise unless `number` is one that LeRobot gives to files and their folders.

    Raises:
        ValueError: If `number` is no whole number, negative, or above `HIGHEST_FILE_NUMBER`.
    """
    if not isinstance(number, int) or not 0 <= number <= HIGHEST_FILE_NUMBER:
        raise ValueError(f"{what} must be a whole number from 0 to {HIGHEST_FILE_NUMBER}, got {number!r}")
