"""A mosaic shows every image, whole and at its place, and nothing else."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from hlrp.report.plots.images import heat, mosaic
from hlrp.report.plots.style import figure_style, png


def cell(picture: Image.Image, axes: Axes, row: int, column: int) -> Image.Image:
    """Cut the cell out of the PNG file."""
    corners = (axes.transData - axes.figure.transFigure).transform([(column, -row), (column + 1, -row - 1)])
    (left, top), (right, bottom) = np.round((corners * (1, -1) + (0, 1)) * picture.size).astype(int)
    return picture.crop((left, top, right, bottom))


@pytest.mark.parametrize("size", [(4, 6), (16, 16), (13, 9)])
def test_every_image_is_found_at_its_place(size: tuple[int, int]) -> None:
    first, *rest = np.random.default_rng(0).uniform(0, 0.9, (4, *size, 3))
    columns = [[None, first], rest]
    with figure_style():
        figure, axes = mosaic(columns, ["one", "two\nlines"], left=0.3, below=9)
        picture = Image.open(BytesIO(png(figure))).convert("RGB")
    for column in range(3):
        for row in range(3):
            shown = cell(picture, axes, row, column)
            image = columns[column][row] if column < 2 and row < len(columns[column]) else None
            found = Image.eval(shown, lambda level: 255 - level).getbbox()  # of what is not white
            assert (found is None) == (image is None)
            if image is not None:
                pixels = shown.crop(found).resize((size[1], size[0]), Image.Resampling.NEAREST)
                np.testing.assert_array_equal(pixels, np.round(255 * image))


def test_the_maps_of_a_clip_share_one_scale() -> None:
    first = np.array([[[0.0, 0.2]], [[0.0, 0.6]]])
    one, half = heat(first, first / 2)
    np.testing.assert_array_equal(one[0], one[1])
    np.testing.assert_array_equal(half[0], half[1])
    assert half[0, 0, 1].sum() < one[0, 0, 1].sum()
    np.testing.assert_array_equal(heat(first, brightest=0.6)[0][1], one[1])
