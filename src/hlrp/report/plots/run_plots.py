"""Plots of the demo's report. Each function takes plain numbers and returns a PNG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hlrp.report.curves import Series
from hlrp.report.durations import duration
from hlrp.report.metrics import PROBED
from hlrp.report.plots.bars import QUARTERS, draw_scores, percent_axis
from hlrp.report.plots.style import BLUE, DARK, FAINT, INK, PALETTE, SKY, VERMILLION, figure_style, new_figure, png


def code_usage_figure(usage: Sequence[Sequence[float]], perplexity: Sequence[float]) -> bytes:
    """Draw the share of clips with each code, one panel per slot; a dashed line marks even use.

    Args:
        usage: Share of each code in each slot, shape (s, k), in [0, 1]; the shares of a slot sum to 1.
        perplexity: exp(entropy) of each slot, in [1, k].

    Raises:
        ValueError: If there is no slot, or `usage` and `perplexity` have different numbers of slots.
    """
    if not usage or len(usage) != len(perplexity):
        raise ValueError(f"expected a perplexity for each slot, got {len(usage)} slots, {len(perplexity)} perplexities")
    columns = min(len(usage), 4)
    rows = -(-len(usage) // columns)
    with figure_style():
        figure = new_figure(0.5 + 1.5 * rows)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(usage) :]:
            axes.set_visible(False)
        for slot, (axes, shares) in enumerate(zip(grid.flat, usage, strict=False)):  # the grid may have spare cells
            _draw_usage(axes, shares)
            axes.set_title(f"slot {slot} · perplexity {perplexity[slot]:.1f}", fontsize=8.5)
        percent_axis(grid.flat[0])
        figure.supxlabel(
            f"code   (dashed: even use, a perplexity of {len(usage[0])};  ×: never used)",
            fontsize=8.5,
            color=FAINT,
        )
        figure.supylabel("share of clips", fontsize=8.5, color=FAINT)
        return png(figure)


def loss_curves_figure(curves: Mapping[str, Series]) -> bytes:
    """Draw one panel for each training run: the logged loss, and its running mean if there are at least 40 points.

    A panel whose positive values span more than a factor of 10 has a logarithmic axis.

    Args:
        curves: Curves by the title of their panel.

    Raises:
        ValueError: If there is no curve, or a curve has no points.
    """
    if not curves:
        raise ValueError("expected at least one training curve, got none")
    for name, series in curves.items():
        if not series.steps:
            raise ValueError(f"the curve {name} has no points; its run logged nothing, lower the logging interval")
    columns = min(len(curves), 3)
    rows = -(-len(curves) // columns)
    with figure_style():
        figure = new_figure(2.1 * rows + 0.15)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(curves) :]:
            axes.set_visible(False)
        for axes, (name, series) in zip(grid.flat, curves.items(), strict=False):  # the grid may have spare cells
            _draw_curve(axes, series)
            axes.set_title(name)
            axes.set_xlabel("step", color=FAINT)
            axes.grid(axis="y")
        return png(figure)


def success_figure(success: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> bytes:
    """Draw grouped bars of the success rate on each task with its interval, one colour per policy.

    Args:
        success: `{policy: {task: (rate, low, high)}}`, all in [0, 1], as `task_successes` returns it.

    Raises:
        ValueError: If no policy has a success rate on any task.
    """
    tasks = list(dict.fromkeys(task for by_task in success.values() for task in by_task))
    if not tasks:
        raise ValueError("expected success rates of at least one policy on one task, got none")
    width = 0.78 / len(success)
    with figure_style():
        figure = new_figure(2.9)
        axes = figure.subplots()
        for index, (policy, by_task) in enumerate(success.items()):
            offset = (index - (len(success) - 1) / 2) * width
            places = [tasks.index(task) + offset for task in by_task]
            axes.bar(
                places,
                [rate for rate, _, _ in by_task.values()],
                width * 0.9,
                color=PALETTE[index % len(PALETTE)],
                label=policy,
            )
            _draw_intervals(axes, places, list(by_task.values()))
        axes.set_xticks(range(len(tasks)), [_wrapped(task) for task in tasks], fontsize=8.5, color=INK)
        axes.set_ylim(0, 1.12)
        axes.set_yticks(QUARTERS)
        percent_axis(axes)
        axes.set_ylabel("episodes solved", color=FAINT)
        axes.grid(axis="y")
        if len(success) > 1:
            figure.legend(loc="outside upper left", ncols=4)
        return png(figure)


def stage_time_figure(stages: Mapping[str, float]) -> bytes:
    """Draw the wall time of the whole run as one bar, divided into its stages.

    Args:
        stages: Seconds of each stage, in the order in which the stages ran.

    Raises:
        ValueError: If there is no stage, a time is negative, or all times are 0.
    """
    if not stages or min(stages.values()) < 0 or not sum(stages.values()):
        raise ValueError(f"expected the seconds of at least one stage, none of them negative, got {dict(stages)}")
    total = sum(stages.values())
    columns = 2
    with figure_style():
        figure = new_figure(0.85 + 0.23 * -(-len(stages) // columns))
        axes = figure.subplots()
        start = 0.0
        for index, (name, seconds) in enumerate(stages.items()):
            colour = PALETTE[index % len(PALETTE)]
            share = f"{name} · {duration(seconds)} · {seconds / total:.0%}"
            axes.barh(0, seconds, left=start, height=1, color=colour, edgecolor="white", label=share)
            if seconds / total > 0.09:  # a narrower part has no room for its label
                ink = "white" if colour in DARK else INK
                axes.text(start + seconds / 2, 0, duration(seconds), ha="center", va="center", color=ink)
            start += seconds
        axes.set_xlim(0, total)
        axes.set_ylim(-0.5, 0.5)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        minutes = _round_ticks(total / 60)
        axes.set_xticks([60 * minute for minute in minutes], [f"{minute:g} min" for minute in minutes])
        figure.legend(loc="outside lower left", ncols=columns, handlelength=1, columnspacing=2)
        return png(figure)


def latent_quality_figure(laq: Mapping[str, Any]) -> bytes:
    """Draw the R² of linear probes of the action chunk from codes, vectors, a still clip's codes, pixels, and both.

    Args:
        laq: `hlrp.measure.laq_quality.LAQQuality` as a dictionary.

    Raises:
        ValueError: If no action of the dataset varies, so that no probe was fitted.
    """
    bars = [(label, laq[name], colour) for name, label, colour in _PROBES]
    if any(value is None for _, value, _ in bars):
        raise ValueError("the probe needs actions that vary, and this LAQ's dataset has none; leave the plot out")
    bars = [(label, float(value), colour) for label, value, colour in bars]
    with figure_style():
        figure = new_figure(2.1)
        xlabel = "R² of a linear map to the action chunk, on held-out episodes"
        draw_scores(figure.subplots(), bars, lowest=_LOWEST_R2, xlabel=xlabel)
        return png(figure)


_LOWEST_R2 = -0.5
"""R² at which a bar is cut off, since R² has no lower bound; the label of the bar shows the true value."""

_GREY = "#AFB8C1"
_PROBES = (
    ("probe_r2", PROBED["codes"], BLUE),
    ("probe_r2_vectors", PROBED["vectors"], SKY),
    ("probe_r2_frame_only", PROBED["frame_only"], _GREY),
    ("probe_r2_pixels", PROBED["pixels"], _GREY),
    ("probe_r2_pixels_and_codes", PROBED["pixels_and_codes"], BLUE),
)


def _draw_intervals(axes: Axes, places: Sequence[float], rates: Sequence[tuple[float, float, float]]) -> None:
    """Draw the interval of each (rate, low, high) as an error bar, with the rate as a number above it."""
    middle, lows, highs = (np.array(column) for column in zip(*rates, strict=True))
    # Rounding can put a rate of 0 or 1 outside its interval by 1e-17, and Matplotlib refuses negative lengths.
    errors = np.clip([middle - lows, highs - middle], 0, None)
    axes.errorbar(places, middle, errors, fmt="none", ecolor=INK, elinewidth=1.1, capsize=2.5)
    for place, (rate, _, high) in zip(places, rates, strict=True):
        axes.text(place, high + 0.03, f"{rate:.0%}", ha="center", va="bottom", fontsize=8)


def _draw_usage(axes: Axes, shares: Sequence[float]) -> None:
    """Draw the share of each code as a bar, even use as a dashed line, and a cross for each code that is never used."""
    codes = range(len(shares))
    axes.bar(codes, shares, width=0.78, color=BLUE)
    axes.axhline(1 / len(shares), color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
    unused = [code for code in codes if shares[code] == 0]
    if unused:
        axes.plot(unused, [0.005] * len(unused), "x", color=VERMILLION, markersize=6, clip_on=False)
    if len(shares) <= 16:
        axes.set_xticks(codes[:: 1 if len(shares) <= 8 else 2])  # more labels would overlap


def _draw_curve(axes: Axes, series: Series) -> None:
    """Draw a loss curve; with at least 40 points also its running mean over a twentieth of the points."""
    steps, values = np.array(series.steps), np.array(series.values)
    window = len(values) // 20
    if window >= 2:
        axes.plot(steps, values, color=BLUE, alpha=0.28, linewidth=0.9)
        mean = np.convolve(values, np.full(window, 1 / window), mode="valid")
        first = (window - 1) // 2
        axes.plot(steps[first : first + len(mean)], mean, color=BLUE, linewidth=1.7)
    else:
        axes.plot(steps, values, color=BLUE, linewidth=1.5, marker="o", markersize=3)
    finite = values[np.isfinite(values)]
    if len(finite) and finite.min() > 0 and finite.max() > 10 * finite.min():
        axes.set_yscale("log")


def _wrapped(name: str) -> str:
    """Break a name of 18 or more characters, such as `button-press-topdown-v3`, into two lines near its middle."""
    if len(name) < 18 or not (cuts := [i for i, letter in enumerate(name) if letter in " -_"]):
        return name
    cut = min(cuts, key=lambda i: abs(i - len(name) / 2))
    return f"{name[: cut + 1]}\n{name[cut + 1 :]}"


def _round_ticks(minutes: float) -> list[float]:
    """Return ticks from 0 to `minutes` at a round distance, nine at most."""
    step = next(step for step in (*_TICKS, minutes) if minutes / step <= 8)
    return [step * i for i in range(int(minutes / step) + 1)]


_TICKS = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 60, 120)
"""Possible distances of the ticks of a time axis, in minutes."""
