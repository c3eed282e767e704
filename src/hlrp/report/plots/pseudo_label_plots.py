"""Plots of actions that inverse dynamics models predict: over time, by dimension, and against their confidence.

Shapes: f held-out frames, a action dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from hlrp.inverse_dynamics.confidence import BINS, Calibration
from hlrp.report.plots.style import BLUE, FAINT, GREY, SKY, VERMILLION, figure_style, new_figure, png

_ROW_HEIGHT = 0.95
"""Height of the plot of one action dimension, in inches."""
_MOST_DIMENSIONS = 8
"""Action dimensions that are drawn over time; a robot with two arms has more than fit on a page."""


def traces_figure(
    frame: Int[np.ndarray, " f"],
    true: Float[np.ndarray, "f a"],
    read: Float[np.ndarray, "f a"],
    names: Sequence[str],
) -> bytes:
    """Draw true and predicted actions of one episode over time, with a row for each of the first action dimensions.

    Args:
        frame: Number of every frame within its episode; gaps are left open.
        true: True actions, in dataset units.
        read: Actions that were predicted from video.
        names: Names of the action dimensions.

    Returns:
        A PNG file.
    """
    rows = min(len(names), _MOST_DIMENSIONS)
    gaps = np.flatnonzero(np.diff(frame) > 1) + 1
    place = np.insert(frame.astype(float), gaps, np.nan)
    with figure_style():
        figure = new_figure(_ROW_HEIGHT * rows + 0.6)
        for number, axes in enumerate(np.atleast_1d(figure.subplots(rows, 1, sharex=True))):
            axes.plot(place, np.insert(true[:, number], gaps, np.nan), color=GREY, linewidth=1.6, label="true")
            axes.plot(
                place, np.insert(read[:, number], gaps, np.nan), color=BLUE, linewidth=1.1, label="predicted from video"
            )
            axes.set_ylabel(names[number], color=FAINT, fontsize=7.5)
            axes.grid(axis="y")
            if number == 0:
                axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
            if number == rows - 1:
                axes.set_xlabel("frame of the episode", color=FAINT)
        return png(figure)


def dimension_error_figure(
    true: Float[np.ndarray, "f a"], read: Float[np.ndarray, "f a"], names: Sequence[str]
) -> bytes:
    """Draw the error of each action dimension as a share of its standard deviation.

    Returns:
        A PNG file.
    """
    spread = true.std(0)
    error = np.sqrt(((true - read) ** 2).mean(0)) / np.where(spread > 0, spread, 1)
    with figure_style():
        figure = new_figure(max(1.2, 0.24 * len(names) + 0.7))
        axes = figure.subplots()
        places = np.arange(len(names))[::-1]
        axes.barh(places, error, 0.7, color=SKY)
        axes.axvline(1, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
        for place, value in zip(places, error, strict=True):
            axes.text(value + 0.01, place, f"{value:.2f}", va="center", fontsize=7.5, color=FAINT)
        axes.set_yticks(places, list(names))
        axes.set_xlim(0, max(1.1, float(error.max()) * 1.1))
        axes.set_xlabel(
            "root mean square error, in standard deviations of the action (1: no better than the mean)", color=FAINT
        )
        axes.grid(axis="x")
        return png(figure)


def confidence_figure(
    calibration: Calibration, confidence: Float[np.ndarray, " f"], error: Float[np.ndarray, " f"], tolerance: float
) -> bytes:
    """Draw how often actions are right by their confidence, and the error of single actions over their confidence.

    Args:
        calibration: Bins of the confidence.
        confidence: Confidence of every held-out action.
        error: Error of every held-out action, in standard deviations.
        tolerance: Error up to which an action counts as right.

    Returns:
        A PNG file.
    """
    frames = np.array(calibration.frames)
    with figure_style():
        figure = new_figure(3.0)
        left, right = figure.subplots(1, 2)
        left.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
        middles = [(min(int(mean * BINS), BINS - 1) + 0.5) / BINS for mean in calibration.confidence]
        left.bar(middles, calibration.right, 0.9 / BINS, color=SKY)
        left.scatter(calibration.confidence, calibration.right, s=8 + 60 * frames / frames.max(), color=BLUE, zorder=3)
        left.set_title(f"calibration error {calibration.error:.3f}", fontsize=8.5)
        left.set_ylabel("actions right", color=FAINT)
        left.set_ylim(0, 1.03)
        right.scatter(confidence, error, s=4, color=BLUE, alpha=0.25, linewidths=0)
        right.axhline(tolerance, color=VERMILLION, linewidth=1)
        right.set_title(f"{len(error)} held-out actions; right below the line", fontsize=8.5)
        right.set_ylabel("error, standard deviations", color=FAINT)
        right.set_ylim(0, float(np.quantile(error, 0.995)) * 1.05)
        for axes in (left, right):
            axes.set_xlim(0, 1)
            axes.set_xlabel("confidence", color=FAINT)
            axes.grid(axis="y")
        return png(figure)
