"""Durations as text for people."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Format a duration in seconds, such as `8.4 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds < 59.95:  # not 60 and 10 below: a value that rounds up to the next unit is shown in the next unit
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"
