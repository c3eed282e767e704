"""Common style of all plots: light axes, the colour-blind-safe palette of Okabe and Ito, PNG files of page width."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

WIDTH = 7.2
"""Width of every plot, in inches; scaled to the page, text of 9 points is then about as large as the page's text."""
DPI = 160
"""Pixels of a PNG file, for each inch of the plot."""

BLUE, VERMILLION, GREEN, ORANGE, SKY, PINK, GREY, YELLOW = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#8C8C8C", "#F0E442"
)  # fmt: skip
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILLION, GREY, YELLOW)
"""Colours of series, in an order in which neighbours also differ in brightness."""
DARK = (BLUE, GREEN, VERMILLION, GREY)
"""Colours dark enough for white text on them."""

INK, FAINT, RULE = "#24292F", "#6E7781", "#D8DEE4"

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.dpi": DPI,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Use the common style for plots drawn inside the block; Matplotlib's settings are restored afterwards."""
    with mpl.rc_context(_STYLE):
        yield


def new_figure(height: float) -> Figure:
    """Return an empty Matplotlib figure of page width and `height` inches. It needs no display, unlike `pyplot`."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)  # inches around each axes
    return Figure(figsize=(WIDTH, height), layout=layout)


def png(figure: Figure) -> bytes:
    """Return the Matplotlib figure as the bytes of a PNG file."""
    buffer = BytesIO()
    # Without Matplotlib's version in the metadata, the same plot gives the same bytes. At compression level 4 instead
    # of 6, files of frames are 3 to 5 % larger, and are written in less than half the time if the frames are large.
    figure.savefig(buffer, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 4})
    return buffer.getvalue()
