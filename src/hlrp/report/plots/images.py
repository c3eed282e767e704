"""Grids of frames and of maps of motion or error, which several plots share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from hlrp.report.plots.style import bare


def draw_row(cells: ndarray, frames: Sequence[Float[ndarray, "h w c"]], maps: Sequence[Float[ndarray, "h w"]]) -> None:
    """Draw a row of axes without ticks: frames in the first cells, maps of motion or error in the next ones.

    All maps share one brightness scale, whose maximum is the largest value of the first map.
    """
    for axes, frame in zip(cells, frames, strict=False):  # the row may have further cells
        axes.imshow(frame, interpolation="nearest")
    brightest = max(float(np.max(maps[0])), 1 / 255)  # at least one grey level, for clips without motion
    for axes, values in zip(cells[len(frames) :], maps, strict=False):  # a row may have a last cell for text
        axes.imshow(values, cmap="inferno", vmin=0, vmax=brightest, interpolation="nearest")
    for axes in cells:
        bare(axes)


def title_columns(grid: ndarray, titles: Sequence[str]) -> None:
    """Write a title above each column of a grid of axes."""
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, loc="center", fontsize=8.5, pad=5)
