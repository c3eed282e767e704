"""Plain-text tables for terminals."""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN = 12
"""Numbers of a list that a message shows."""


def with_noun(count: int, noun: str) -> str:
    """A number with its noun: 1 episode, 2 episodes."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def shortened(numbers: Sequence[int]) -> str:
    """The first numbers of a list as text: 0, 3, 4, … and 12 more."""
    shown = ", ".join(str(number) for number in numbers[:_SHOWN])
    return shown if len(numbers) <= _SHOWN else f"{shown}, … and {len(numbers) - _SHOWN} more"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell, with a rule under the header."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    return "\n".join(line.rstrip() for line in (lines[0], "  ".join("─" * width for width in widths), *lines[1:]))
