"""Bar charts that several plots share: grouped bars with numbers, and horizontal bars of scores whose best is 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from hlrp.report.plots.style import FAINT, INK

QUARTERS = [0, 0.25, 0.5, 0.75, 1]
"""Ticks of an axis of shares."""


def draw_group(
    axes: Axes,
    index: int,
    count: int,
    values: Sequence[float],
    *,
    colour: str,
    label: str,
    with_numbers: bool,
    lowest: float = 0.0,
) -> None:
    """Draw the bars of series `index` of `count` series: one bar at each of the places 0, 1, …, beside the others.

    Args:
        axes: Where to draw.
        index: Number of the series, from 0.
        count: Number of series that share the places.
        values: Height of each bar.
        colour: Colour of the bars.
        label: Name of the series in the legend.
        with_numbers: Write each value above its bar.
        lowest: Height at which a bar below 0 is cut off; the number above it shows the true value.
    """
    width = 0.84 / count
    places = np.arange(len(values)) + (index - (count - 1) / 2) * width
    heights = np.maximum(values, lowest)
    axes.bar(places, heights, width * 0.92, color=colour, label=label)
    if with_numbers:
        for place, height, value in zip(places, heights, values, strict=True):
            axes.text(place, max(height, 0) + 0.012, f"{value:.2f}", ha="center", fontsize=6.5, color=FAINT)


def draw_scores(axes: Axes, bars: Sequence[tuple[str, float, str]], *, lowest: float, xlabel: str) -> None:
    """Draw horizontal bars of scores that have no lower bound and whose best value is 1, such as R².

    Args:
        axes: Where to draw.
        bars: (label, score, colour) of each bar, from top to bottom.
        lowest: Score at which a bar is cut off; the number beside it shows the true value.
        xlabel: Meaning of the score.
    """
    lengths = [max(score, lowest) for _, score, _ in bars]
    axes.barh(range(len(bars)), lengths, height=0.68, color=[colour for _, _, colour in bars])
    for row, (length, (_, score, _)) in enumerate(zip(lengths, bars, strict=True)):
        axes.text(max(length, 0) + 0.012, row, f"{score:.2f}", va="center", fontsize=8.5)
    axes.set_yticks(range(len(bars)), [label for label, _, _ in bars], fontsize=8.5, color=INK)
    axes.invert_yaxis()
    axes.axvline(0, color=FAINT, linewidth=0.9)
    axes.set_xlim(min(0, *lengths) * 1.03, 1.06)
    axes.set_xlabel(xlabel, color=FAINT)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)


def percent_axis(axes: Axes) -> None:
    """Label the vertical axis in percent."""
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
