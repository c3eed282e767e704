"""Plots of how well a foundation model predicts codes: accuracy of each slot, confusion matrices, calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from hlrp.measure.code_accuracy import CodeAccuracy, Reliability
from hlrp.report.metrics import FOUNDATION_METRICS
from hlrp.report.plots.bars import QUARTERS, draw_group, percent_axis
from hlrp.report.plots.style import BLUE, FAINT, GREY, INK, ORANGE, SKY, VERMILLION, figure_style, new_figure, png

_SLOTS_WITH_NUMBERS = 6
"""Largest number of slots with numbers above their bars; more slots leave no room."""
_CODES_WITH_NUMBERS = 8
"""Largest codebook with numbers in the cells of its confusion matrix; more codes leave no room."""
_COLUMNS = 4
"""Largest number of confusion matrices side by side."""


def slot_accuracy_figure(quality: CodeAccuracy) -> bytes:
    """Draw grouped bars for each slot: decoded and teacher-forced accuracy, beside the accuracy of guesses.

    Returns:
        A PNG file.
    """
    bars: list[tuple[str, Sequence[float], str]] = [
        (_label("decoded_accuracy"), quality.decoded_accuracy_per_slot, BLUE),
        (_label("teacher_forced_accuracy"), quality.teacher_forced_accuracy_per_slot, SKY),
        (_label("constant_guess_accuracy"), quality.constant_guess_accuracy_per_slot, GREY),
    ]
    if quality.last_code_accuracy_per_slot is not None:
        bars.append((_label("last_code_accuracy"), quality.last_code_accuracy_per_slot, ORANGE))
    slots = len(quality.decoded_accuracy_per_slot)
    with figure_style():
        figure = new_figure(2.6)
        axes = figure.subplots()
        for index, (label, values, colour) in enumerate(bars):
            draw_group(
                axes, index, len(bars), values, colour=colour, label=label, with_numbers=slots <= _SLOTS_WITH_NUMBERS
            )
        axes.set_xticks(range(slots), [str(slot) for slot in range(slots)], color=INK)
        axes.set_xlabel("slot", color=FAINT)
        edge = max(slots, 3) / 2  # with one or two slots, leave space at the sides instead of drawing very wide bars
        axes.set_xlim((slots - 1) / 2 - edge, (slots - 1) / 2 + edge)
        axes.set_ylim(0, 1.06)
        axes.set_yticks(QUARTERS)
        percent_axis(axes)
        axes.set_ylabel("codes right", color=FAINT)
        axes.grid(axis="y")
        figure.legend(loc="outside upper left", ncols=len(bars), handlelength=1.2, columnspacing=1.4)
        return png(figure)


def confusion_figure(confusion: Sequence[Sequence[Sequence[int]]]) -> bytes:
    """Draw a confusion matrix for each slot. Each row is a true code and shows the shares of the decoded codes.

    Args:
        confusion: Number of frames by slot, true code and decoded code, shape (q, k, k). The row of a code that never
            occurs is left empty.

    Returns:
        A PNG file.

    Raises:
        ValueError: If there is no slot.
    """
    shares = _shares_of_rows(confusion)
    slots, k, _ = shares.shape
    columns = min(slots, _COLUMNS)
    rows = -(-slots // columns)
    numbered = k <= _CODES_WITH_NUMBERS
    with figure_style():
        figure = new_figure(0.55 + min(7.0 / columns + 0.1, 3.2) * rows)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[slots:]:
            axes.set_visible(False)
        image = None
        for slot, (axes, share) in enumerate(zip(grid.flat, shares, strict=False)):  # the grid may have spare cells
            image = _draw_matrix(axes, share)
            axes.set_title(f"slot {slot}", fontsize=8.5, pad=4)
            if numbered:
                _write_shares(axes, share, size=6 if columns == _COLUMNS else 8)
        # sharex labels only the bottom row, whose last cells may be hidden: label the lowest visible cell of a column.
        for axes in grid.flat[max(slots - columns, 0) : slots]:
            axes.tick_params(labelbottom=True)
        figure.supxlabel("decoded code", fontsize=8.5, color=FAINT)
        figure.supylabel("true code", fontsize=8.5, color=FAINT)
        if image is not None and not numbered:
            bar = figure.colorbar(image, ax=grid, shrink=0.7, pad=0.02)
            percent_axis(bar.ax)
            bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        return png(figure)


def reliability_figure(reliability: Reliability, calibration_error: float) -> bytes:
    """Draw a reliability diagram (accuracy over confidence; perfect is the diagonal) and a histogram of the confidence.

    Args:
        reliability: Bins of confidence with their mean confidence, accuracy and number of codes.
        calibration_error: Expected calibration error: mean distance of the bins to the diagonal.

    Returns:
        A PNG file.
    """
    codes = np.array(reliability.codes)
    edges = np.linspace(0, 1, len(codes) + 1)
    middles, width = (edges[:-1] + edges[1:]) / 2, edges[1]
    with figure_style():
        figure = new_figure(3.0)
        left, right = figure.subplots(1, 2, width_ratios=[1, 1])
        _draw_reliability(left, reliability, middles, width)
        left.set_title(f"{_label('calibration_error')} {calibration_error:.3f}", fontsize=8.5)
        right.bar(middles, codes / max(codes.sum(), 1), width * 0.9, color=BLUE)
        right.set_title(f"{codes.sum()} decoded codes", fontsize=8.5)
        right.set_xlabel("probability the model gives its code", color=FAINT)
        right.set_ylabel("share of codes", color=FAINT)
        for axes in (left, right):
            axes.set_xlim(0, 1)
            axes.set_xticks(QUARTERS, ["0", "25%", "50%", "75%", "100%"])
            axes.grid(axis="y")
            percent_axis(axes)
        return png(figure)


def _draw_reliability(axes: Axes, reliability: Reliability, middles: np.ndarray, width: float) -> None:
    """Draw the accuracy of each bin as a bar around its middle, and its distance to the diagonal as a line."""
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
    for middle, confidence, accuracy in zip(middles, reliability.confidence, reliability.accuracy, strict=True):
        if confidence is None or accuracy is None:  # no code fell into this bin
            continue
        axes.bar(middle, accuracy, width * 0.9, color=SKY)
        axes.plot([confidence] * 2, [confidence, accuracy], color=VERMILLION, linewidth=1.4)
        axes.plot(confidence, accuracy, "o", color=BLUE, markersize=4)
    axes.set_xlabel("probability the model gives its code", color=FAINT)
    axes.set_ylabel("codes right", color=FAINT)
    axes.set_ylim(0, 1.03)
    axes.set_yticks(QUARTERS)


def _label(key: str) -> str:
    return FOUNDATION_METRICS[key].name


def _shares_of_rows(confusion: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
    """Shares of the decoded codes for every slot and true code, shape (q, k, k); NaN for codes that never occur."""
    counts = np.asarray(confusion, dtype=np.float64)
    if counts.ndim != 3 or not len(counts):
        raise ValueError(f"expected counts by slot, true code and decoded code, got shape {counts.shape}")
    frames = counts.sum(2, keepdims=True)
    return counts / np.where(frames, frames, np.nan)


def _draw_matrix(axes: Axes, share: np.ndarray) -> AxesImage:
    k = len(share)
    axes.set_facecolor("#EEF1F4")  # shows through in the rows of codes that never occur, which are NaN
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    step = 1 if k <= _CODES_WITH_NUMBERS else -(-k // 4)
    axes.set_xticks(range(0, k, step))
    axes.set_yticks(range(0, k, step))
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def _write_shares(axes: Axes, shares: np.ndarray, *, size: int) -> None:
    """Write shares as percentages into the cells of a confusion matrix; shares that round to 0 % stay blank."""
    for true, row in enumerate(shares):
        for decoded, share in enumerate(row):
            if share >= 0.005:
                colour = "white" if share > 0.55 else INK
                axes.text(decoded, true, f"{100 * share:.0f}", ha="center", va="center", fontsize=size, color=colour)
