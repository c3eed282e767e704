"""Plot of frames that a quantizer predicts from frame t and codes, with the true and the predicted motion."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from torch import Tensor

from hlrp.report.plots.images import draw_row, title_columns
from hlrp.report.plots.style import FAINT, figure_style, new_figure, png, tighten

_COLUMNS = ("frame t", "frame t + offset", "prediction", "true motion", "predicted motion", "codes")


def reconstruction_figure(
    frames_before: Float[Tensor, "b c h w"],
    frames_after: Float[Tensor, "b c h w"],
    predicted: Float[Tensor, "b c h w"],
    codes: Int[Tensor, "b s"],
) -> bytes:
    """Draw a row for each clip: both frames, the prediction of the second, true and predicted motion, and the codes.

    Motion is the mean over channels of |frame - frame t|; both maps of a row share one brightness scale, whose maximum
    is the largest value of the true motion.

    Args:
        frames_before: Frame t, RGB in [0, 1].
        frames_after: Frame t + offset, RGB in [0, 1].
        predicted: The prediction of `frames_after`; values outside [0, 1] are clipped.
        codes: Codes of the transition.

    Returns:
        A PNG file.

    Raises:
        ValueError: If there is no clip.
    """
    if not len(frames_before):
        raise ValueError("expected at least one clip to show, got none")
    before, after, guess = (frames.detach().cpu().clamp(0, 1) for frames in (frames_before, frames_after, predicted))
    motions = [(frames - before).abs().mean(1) for frames in (after, guess)]
    pictures = [rearrange(frames, "b c h w -> b h w c") for frames in (before, after, guess)]
    with figure_style():
        figure = new_figure(0.25 + 1.26 * len(before))
        grid = figure.subplots(len(before), len(_COLUMNS), squeeze=False, width_ratios=[1, 1, 1, 1, 1, 0.6])
        for row, cells in enumerate(grid):
            draw_row(cells, [frames[row].numpy() for frames in pictures], [motion[row].numpy() for motion in motions])
            _draw_codes(cells[5], codes[row])
        title_columns(grid, _COLUMNS)
        tighten(figure, 0.025)
        return png(figure)


_CHIP = {"boxstyle": "round,pad=0.35", "facecolor": "#EEF2F6", "edgecolor": FAINT, "linewidth": 0.6}


def _draw_codes(axes: Axes, codes: Int[Tensor, " s"]) -> None:
    """Draw codes as labelled boxes, two in a row; they have no colour scale, since codes are nominal, not ordered."""
    axes.set(xlim=(0, 1), ylim=(0, 1))
    lines = [codes.tolist()[i : i + 2] for i in range(0, len(codes), 2)]
    for line, chips in enumerate(lines):
        for column, code in enumerate(chips):
            axes.text(
                0.28 + 0.48 * column, 0.5 + 0.26 * ((len(lines) - 1) / 2 - line), str(code),
                ha="center", va="center", fontsize=9, family="DejaVu Sans Mono",
                bbox=_CHIP,
            )  # fmt: skip
