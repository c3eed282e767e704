"""Ways in which a file that was copied or written badly is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def damaged(file: Path) -> Iterator[str]:
    """Damage `file` in one way after the other, and put it right in the end; yields how."""
    content = file.read_bytes()
    ways = {"cut": content[: len(content) // 2], "empty": b"", "list": b"[]", "other": b"{}", "noise": b"\xff\x00\xfe"}
    for how, other in ways.items():
        file.write_bytes(other)
        yield how
    file.write_bytes(content)
