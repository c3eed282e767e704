"""Grids of frames and of maps of motion or error, which several plots share."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from numpy import ndarray
from PIL import Image

from hlrp.report.plots.style import DPI, WIDTH

_Image = Float[ndarray, "h w 3"]
_Images = Float[ndarray, "b h w 3"]

_GAP = 8
"""Space between neighbouring images, in pixels of the PNG file."""
_FEWEST_COLUMNS = 4
"""A grid of fewer columns is drawn as if it had so many, since its images would become huge."""


def mosaic(
    columns: Sequence[Sequence[_Image | None] | _Images],
    titles: Sequence[str] = (),
    *,
    left: float = 0.0,
    below: int = 0,
) -> tuple[Figure, Axes]:
    """Draw a grid of images of one size as a single image; Matplotlib takes four times as long for axes of each image.

    The returned axes cover the whole figure, for texts and further axes. Their coordinates count cells: the cell in row
    r of column c spans c … c + 1 from left to right and -r … -(r + 1) from top to bottom.

    Args:
        columns: RGB images in [0, 1] of each column, from top to bottom. None leaves a cell empty, as does a column
            that is shorter than the others.
        titles: Title above each column.
        left: Space left of the grid, as a share of the width of a cell.
        below: Space for text below every image, in pixels of the PNG file.
    """
    height, width = next(image.shape for column in columns for image in column if image is not None)[:2]
    cell_width = int(WIDTH * DPI / (left + max(len(columns), _FEWEST_COLUMNS)))
    size = (cell_width - _GAP, round((cell_width - _GAP) * height / width))
    cell_height = size[1] + _GAP + below
    margin = round(left * cell_width)
    header = max((8 + 22 * (1 + title.count("\n")) for title in titles), default=0)
    rows = max(len(column) for column in columns)
    pixels = np.full((header + rows * cell_height, round(WIDTH * DPI), 4), 255, dtype=np.uint8)
    for number, column in enumerate(columns):
        for row, image in enumerate(column):
            if image is not None:
                x, y = margin + number * cell_width + _GAP // 2, header + row * cell_height + _GAP // 2
                pixels[y : y + size[1], x : x + size[0], :3] = _resized(image, size)
    figure = Figure(figsize=(WIDTH, len(pixels) / DPI))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-margin / cell_width, (WIDTH * DPI - margin) / cell_width), ylim=(-rows, header / cell_height))
    axes.set_axis_off()
    axes.add_artist(_Pixels(pixels))
    for number, title in enumerate(titles):
        axes.text(number + 0.5, 6 / cell_height, title, ha="center", va="bottom", fontsize=8, fontweight="bold")
    return figure, axes


def heat(*maps: Float[ndarray, "b h w"], brightest: float | None = None) -> list[_Images]:
    """Colour maps of motion or error of b clips, from black to bright yellow, on one scale for all maps of a clip.

    Args:
        maps: Non-negative values.
        brightest: Value that is drawn brightest. None: the largest value of the clip in the first of the maps.
    """
    # At least one grey level, for clips without motion.
    top = maps[0].max((1, 2), keepdims=True).clip(1 / 255) if brightest is None else brightest
    return [mpl.colormaps["inferno"](values / top)[..., :3] for values in maps]


class _Pixels(Artist):
    """RGBA pixels that cover a figure; `imshow` would resample them, which takes as long as all the rest."""

    def __init__(self, pixels: UInt8[ndarray, "h w 4"]) -> None:
        super().__init__()
        self.pixels = pixels

    def draw(self, renderer: RendererBase) -> None:
        """Copy the pixels; Matplotlib expects the lowest row first."""
        renderer.draw_image(renderer.new_gc(), 0, 0, self.pixels[::-1])


def _resized(image: Float[ndarray, "h w 3"], size: tuple[int, int]) -> ndarray:
    """Enlarge an image with sharp pixels, or shrink it by averaging, to (width, height)."""
    levels = (255 * image + 0.5).astype(np.uint8)
    return np.asarray(Image.fromarray(levels).resize(size, Image.Resampling.BOX))
