"""Plots of latent actions: predicted frames and errors, probes, transferred codes, checks of motion, an atlas of codes.

If a model has several cameras, only the first is drawn. All plots are returned as PNG files.

Shapes: x examples, or frames to which codes are applied; y clips of an entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from einops import rearrange
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from numpy import ndarray
from torch import Tensor

from hlrp.report.metrics import PROBED
from hlrp.report.plots.bars import draw_group, draw_scores
from hlrp.report.plots.images import heat, mosaic
from hlrp.report.plots.style import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RULE,
    SKY,
    VERMILLION,
    figure_style,
    new_figure,
    png,
)

_LOWEST_R2 = -0.2
"""R² at which a bar is cut off, since R² has no lower bound; the label of the bar shows the true value."""
_DIMENSIONS_WITH_NUMBERS = 8
"""Largest number of action dimensions with numbers above their bars; more dimensions leave no room."""
_PROBED = {"codes": BLUE, "quantized": SKY, "vectors": GREEN, "frame_only": GREY, "pixels": ORANGE}


def prediction_figure(
    before: Float[Tensor, "b c h w"],
    after: Float[Tensor, "b c h w"],
    predicted: Float[Tensor, "b c h w"],
    codes: Int[Tensor, "b s"] | None,
) -> bytes:
    """Draw a row for each clip: both frames, the predicted frame, and error maps of copying frame t and of predicting.

    Both error maps of a row share one brightness scale, whose maximum is the largest error of copying.

    Args:
        before: Frame t, RGB in [0, 1].
        after: The frame one offset later, RGB in [0, 1].
        predicted: The prediction of `after`; values outside [0, 1] are clipped.
        codes: Codes of the transition, printed below the prediction; None for a latent without codes.
    """
    pictures = [_rgb(frames) for frames in (before, after, predicted)]
    errors = heat(*(_motion(frames, after) for frames in (before, predicted)))
    titles = ("frame t", "truth", "prediction", "error of a copy", "error of prediction")
    with figure_style():
        figure, axes = mosaic([*pictures, *errors], titles, below=0 if codes is None else 22)
        for row, name in enumerate([] if codes is None else codes.tolist()):
            axes.text(2.5, -row - 0.98, " ".join(map(str, name)), ha="center", va="bottom", fontsize=7.5, color=FAINT)
        return png(figure)


def probe_figure(per_action: Mapping[str, Sequence[float | None]]) -> bytes:
    """Draw grouped bars of the linear probes' R² for each action dimension that varies.

    Args:
        per_action: R² of each action dimension by probed features: `LAQQuality.probe_r2_per_action_by_features`.

    Raises:
        ValueError: If no dimension varies.
    """
    dimensions = [i for i, value in enumerate(next(iter(per_action.values()))) if value is not None]
    if not dimensions:
        raise ValueError("the probe needs an action that varies, and there is none; leave the plot out")
    with figure_style():
        figure = new_figure(2.7)
        axes = figure.subplots()
        for index, (feature, values) in enumerate(per_action.items()):
            draw_group(
                axes,
                index,
                len(per_action),
                [values[i] or 0.0 for i in dimensions],
                colour=_PROBED[feature],
                label=PROBED[feature],
                with_numbers=len(dimensions) <= _DIMENSIONS_WITH_NUMBERS,
                lowest=_LOWEST_R2,
            )
        axes.axhline(0, color=FAINT, linewidth=0.9)
        axes.set_xticks(range(len(dimensions)), [str(i) for i in dimensions], color=INK)
        axes.set_xlabel("action dimension", color=FAINT)
        axes.set_ylim(top=1.08)
        is_cut = any((values[i] or 0.0) < _LOWEST_R2 for values in per_action.values() for i in dimensions)
        axes.set_ylabel(f"probe R², cut at {_LOWEST_R2:g}" if is_cut else "probe R²", color=FAINT)
        axes.grid(axis="y")
        figure.legend(loc="outside upper left", ncols=5, handlelength=1.2, columnspacing=1.4)
        return png(figure)


def gain_figure(copy_gain: float, moving: float | None, permuted: float) -> bytes:
    """Draw bars of the gain over copying frame t, where 1 is a perfect prediction.

    Args:
        copy_gain: Gain with the clip's own codes.
        moving: Gain with the clip's own codes on moving pixels only; None if nothing moves.
        permuted: Gain with the codes of another clip, which should be lost.
    """
    bars = [("own codes", copy_gain, BLUE), ("permuted codes", permuted, VERMILLION)]
    if moving is not None:
        bars.insert(1, ("own codes, moving pixels", moving, SKY))
    with figure_style():
        figure = new_figure(0.6 + 0.35 * len(bars))
        draw_scores(figure.subplots(), bars, lowest=-1.0, xlabel="squared error saved, over copying frame t")
        return png(figure)


def transfer_figure(
    sources: Float[Tensor, "b two c h w"],
    targets: Float[Tensor, "x c h w"],
    predicted: Float[Tensor, "b x c h w"],
) -> bytes:
    """Draw a grid of transferred codes: each row uses the codes of one clip, each column applies them to one frame.

    Images show motion as in `overlay`; the top row shows the frames themselves.

    Args:
        sources: Frame t and the later frame of each clip whose codes are used, RGB in [0, 1].
        targets: Frames that the codes are applied to, RGB in [0, 1].
        predicted: Predicted frame for each pair of a clip's codes and a target, RGB in [0, 1].
    """
    columns: list[list[ndarray | None]] = [[None, *overlay(sources[:, 0], sources[:, 1])]]
    for frame, results in zip(targets, predicted.transpose(0, 1), strict=True):
        columns.append([*_rgb(frame[None]), *overlay(frame.expand_as(results), results)])
    with figure_style():
        figure, axes = mosaic(columns)
        axes.text(0.5, -0.38, "applied to →", ha="center", va="center", fontsize=8)
        axes.text(0.5, -0.7, "codes of ↓", ha="center", va="center", fontsize=8)
        return png(figure)


@dataclass(frozen=True)
class AtlasEntry:
    """Summary of all clips that have the same code, or the same code tuple."""

    name: str
    share: float
    """Share of these clips among all clips, in [0, 1]."""
    change: Float[Tensor, "h w"]
    """Change of brightness from frame t to the later frame, averaged over the clips, in [-1, 1]."""
    before: Float[Tensor, "x c h w"]
    """Frame t of a few example clips, RGB in [0, 1]."""
    after: Float[Tensor, "x c h w"]
    """Frame one offset later of the example clips, RGB in [0, 1]."""
    actions: Float[Tensor, "y a"] | None
    """Standardized mean action of each clip with finite actions, in one or two dimensions; None if no clip has any."""


def atlas_figure(entries: Sequence[AtlasEntry], dimensions: Sequence[int] = ()) -> bytes:
    """Draw a column for each entry: its actions as dots and an arrow, its mean change of brightness, and examples.

    The plane of dots and arrow is left out if no entry has actions. All maps of change share one colour scale.

    Args:
        entries: Codes, or code tuples, with their clips.
        dimensions: Numbers of the action dimensions of `AtlasEntry.actions`, which are written at the axes.

    Raises:
        ValueError: If there is no entry.
    """
    if not entries:
        raise ValueError("expected at least one code that is used, got none")
    plots = [None] if any(entry.actions is not None for entry in entries) else []  # empty cells, for axes of actions
    strongest = max(max(float(entry.change.abs().max()) for entry in entries), 1e-6)
    changes = [mpl.colormaps["RdBu_r"](entry.change.numpy() / (2 * strongest) + 0.5)[..., :3] for entry in entries]
    columns = [
        [*plots, change, *overlay(entry.before, entry.after)] for change, entry in zip(changes, entries, strict=True)
    ]
    with figure_style():
        figure, axes = mosaic(columns, [f"{entry.name}\n{entry.share:.0%}" for entry in entries])
        for column, entry in enumerate(entries):
            if entry.actions is not None:
                cell = (column + 0.02, -0.98, 0.96, 0.96)
                _draw_arrow(axes.inset_axes(cell, transform=axes.transData), entry.actions, dimensions)
        return png(figure)


def checks_figure(
    before: Float[Tensor, "b c h w"],
    after: Float[Tensor, "b c h w"],
    still: Float[Tensor, "b c h w"],
    backwards: Float[Tensor, "b c h w"],
) -> bytes:
    """Draw a row for each clip: its true motion, the prediction for a still clip, and that for the reversed clip.

    Args:
        before: Frame t, RGB in [0, 1].
        after: The frame one offset later, RGB in [0, 1].
        still: Prediction from frame t and the codes of frame t repeated; ideally frame t.
        backwards: Prediction from the later frame and the codes of the reversed clip; ideally frame t.
    """
    titles = ("true motion", "under 'no motion'", "change × 4", "backwards, truth", "backwards, predicted")
    (rest,) = heat(_motion(still, before) * 4, brightest=1)
    columns = [overlay(before, after), overlay(before, still), rest, overlay(after, before), overlay(after, backwards)]
    with figure_style():
        return png(mosaic(columns, titles)[0])


def overlay(before: Float[Tensor, "b c h w"], after: Float[Tensor, "b c h w"]) -> Float[ndarray, "b h w 3"]:
    """Show two frames in one image: unchanged pixels are grey, darker ones blue, brighter ones orange."""
    first, second = (rearrange(_rgb(frames), "b h w c -> c b h w").mean(0) for frames in (before, after))
    change = np.clip(3 * (second - first), -1, 1)[..., None]
    grey = (0.35 + 0.5 * (first + second) / 2)[..., None]
    bright, dark = np.array([0.84, 0.37, 0.0]), np.array([0.0, 0.45, 0.85])
    coloured = grey * (1 - np.abs(change)) + np.where(change > 0, bright, dark) * np.abs(change)
    return np.clip(coloured, 0, 1)


def first_camera(frames: Float[Tensor, "*b m c h w"]) -> Float[Tensor, "*b c h w"]:
    """Return the RGB images of the first camera, on the CPU, clipped to [0, 1]."""
    return frames[..., 0, :, :, :].detach().cpu().float().clamp(0, 1)


def _rgb(frames: Float[Tensor, "b c h w"]) -> Float[ndarray, "b h w 3"]:
    return rearrange(frames.clamp(0, 1), "b c h w -> b h w c").numpy()


def _motion(frames: Float[Tensor, "b c h w"], others: Float[Tensor, "b c h w"]) -> Float[ndarray, "b h w"]:
    """Return the absolute difference of two frames, averaged over the colour channels."""
    return np.abs(_rgb(frames) - _rgb(others)).mean(-1)


def _draw_arrow(axes: Axes, actions: Float[Tensor, "y a"], dimensions: Sequence[int]) -> None:
    """Draw actions as dots and their mean as an arrow from the origin; a single action dimension is drawn along x.

    What lies outside the axes is drawn at their edge, in the same direction.
    """
    points = np.zeros((len(actions), 2))
    points[:, : actions.shape[1]] = actions.numpy()
    mean = points.mean(0)
    x, y = mean * min(1.0, 1.3 / max(np.abs(mean).max(), 1e-9))  # Matplotlib leaves out an arrow that ends outside
    axes.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal")
    axes.set_axis_off()
    axes.axhline(0, color=RULE, linewidth=0.7)
    axes.axvline(0, color=RULE, linewidth=0.7)
    axes.scatter(*points[:150].clip(-1.4, 1.4).T, s=3, color=SKY, alpha=0.45, linewidths=0)
    arrow = {"arrowstyle": "-|>", "color": BLUE, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (x, y), (0, 0), arrowprops=arrow)
    corners = ((1.38, -0.08, "right", "top"), (0.08, 1.38, "left", "top"))
    for number, (right, up, horizontal, vertical) in zip(dimensions, corners, strict=False):  # one dimension has no y
        axes.text(right, up, str(number), color=FAINT, fontsize=7, ha=horizontal, va=vertical)
