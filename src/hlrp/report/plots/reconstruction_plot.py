"""Plot of frames that a quantizer predicts from frame t and codes, with the true and the predicted motion."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from torch import Tensor

from hlrp.report.plots.images import heat, mosaic
from hlrp.report.plots.style import FAINT, figure_style, png

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
    motions = heat(*((frames - before).abs().mean(1).numpy() for frames in (after, guess)))
    pictures = [rearrange(frames, "b c h w -> b h w c").numpy() for frames in (before, after, guess)]
    with figure_style():
        figure, axes = mosaic([*pictures, *motions, []], _COLUMNS)
        for row, numbers in enumerate(codes.tolist()):
            _draw_codes(axes, row, numbers)
        return png(figure)


_CHIP = {"boxstyle": "round,pad=0.35", "facecolor": "#EEF2F6", "edgecolor": FAINT, "linewidth": 0.6}


def _draw_codes(axes: Axes, row: int, codes: list[int]) -> None:
    """Draw codes as labelled boxes, two in a line; they have no colour scale, since codes are nominal, not ordered."""
    lines = [codes[i : i + 2] for i in range(0, len(codes), 2)]
    for line, chips in enumerate(lines):
        for side, code in enumerate(chips):
            axes.annotate(
                str(code), (5.5, -row - 0.5), (26 * (side - 0.5), 22 * ((len(lines) - 1) / 2 - line)),
                textcoords="offset points", ha="center", va="center", fontsize=9, family="DejaVu Sans Mono",
                bbox=_CHIP,
            )  # fmt: skip
