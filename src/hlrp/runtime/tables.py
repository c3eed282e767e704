"""Plain-text tables for terminals."""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN = 12
"""Items of a list that a message shows."""


def with_noun(count: int, noun: str) -> str:
    """A number with its noun: 1 episode, 2 episodes."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def shortened(items: Sequence[object]) -> str:
    """The first numbers or names of a list as text: 0, 3, 4, … and 12 more."""
    shown = ", ".join(str(item) for item in items[:_SHOWN])
    return shown if len(items) <= _SHOWN else f"{shown}, … and {len(items) - _SHOWN} more"


def ranges(numbers: Sequence[int]) -> str:
    """Increasing numbers as text, runs of them shortened: "0 to 4, 7, 9 to 11"; "none" if there is no number."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in runs) or "none"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell, with a rule under the header."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    return "\n".join(line.rstrip() for line in (lines[0], "  ".join("─" * width for width in widths), *lines[1:]))
