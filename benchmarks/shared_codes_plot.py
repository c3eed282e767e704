"""Plot of clips that share their codes, with the motion of the hand and of the ball as arrows.

Shapes: n clips that are drawn, b clips in all; a motion is its start and its end in the image, in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from hlrp.report.plots.style import BLUE, DPI, FAINT, RULE, VERMILLION, WIDTH, figure_style, png

_LONGER = 3
"""Factor by which arrows are longer than the motion."""
_HAND, _BALL = BLUE, VERMILLION
_REACH = 42
"""Half the width of the plots of all motions, in pixels of the frames."""
_HEADER, _LEGEND, _GAP = 0.44, 0.26, 0.06
"""Height of the text above a row, height of the legend, and space between pictures, in inches."""


@dataclass(frozen=True, kw_only=True)
class SharedCodes:
    """Clips that one quantizer gives the same codes."""

    title: str
    """What the quantizer has learned from."""
    codes: list[int]
    frames: UInt8[Tensor, "n 3 h w"]
    """First frames of some of the clips, RGB."""
    hand: Float[Tensor, "b 2 2"]
    """Motion of the hand in each clip; the first n are those of `frames`."""
    ball: Float[Tensor, "b 2 2"]
    """Motion of the ball, as of `hand`."""
    hand_r2: float
    """R² of the hand's motion in held-out clips, predicted linearly from the codes."""
    ball_r2: float
    """R² of the ball's motion, as of `hand_r2`."""


def shared_codes_figure(rows: Sequence[SharedCodes]) -> bytes:
    """Draw a row for each quantizer: frames with the motion of the hand and the ball, then all motions side by side.

    Returns:
        A PNG file.
    """
    shown = len(rows[0].frames)
    cell = WIDTH / (shown + 2)
    row_height = cell + _HEADER
    height = len(rows) * row_height + _LEGEND
    with figure_style():
        figure = Figure(figsize=(WIDTH, height), dpi=DPI)
        for number, row in enumerate(rows):
            bottom = height - _LEGEND - (number + 1) * row_height

            def axes_at(place: int, bottom: float = bottom) -> Axes:
                side = cell - _GAP
                box = (place * cell + _GAP / 2, bottom + _GAP / 2, side, side)
                return figure.add_axes((box[0] / WIDTH, box[1] / height, box[2] / WIDTH, box[3] / height))

            for place, (frame, hand, ball) in enumerate(zip(row.frames, row.hand, row.ball, strict=False)):
                _draw_clip(axes_at(place), frame, hand, ball)
            for place, (what, motions, colour) in enumerate((("hand", row.hand, _HAND), ("ball", row.ball, _BALL))):
                axes = axes_at(shown + place)
                _draw_motions(axes, motions, colour)
                axes.set_title(f"{what}, {len(motions)} clips", fontsize=8, color=colour, loc="center", pad=3)
            top = (bottom + cell + _HEADER - 0.08) / height
            text = f"{row.title}: clips with the same four codes ({' '.join(map(str, row.codes))})"
            figure.text(_GAP / 2 / WIDTH, top, text, va="top", fontweight="bold", fontsize=9)
            explained = (
                f"R² of the motion in held-out clips, from codes: hand {_r2(row.hand_r2)}, ball {_r2(row.ball_r2)}"
            )
            figure.text(_GAP / 2 / WIDTH, top - 0.17 / height, explained, va="top", fontsize=8, color=FAINT)
        _draw_legend(figure, height)
        return png(figure)


def _r2(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # the sum turns -0.0 into 0.0


def _draw_clip(axes: Axes, frame: UInt8[Tensor, "3 h w"], hand: Tensor, ball: Tensor) -> None:
    high, wide = frame.shape[1:]
    axes.imshow(frame.permute(1, 2, 0).numpy(), extent=(0, wide, high, 0), interpolation="nearest")
    axes.set(xlim=(0, wide), ylim=(high, 0))
    axes.set_axis_off()
    for (start, end), colour in ((ball, _BALL), (hand, _HAND)):
        _draw_arrow(axes, start.tolist(), (start + _LONGER * (end - start)).tolist(), colour, width=2.0, outline=1.6)


def _draw_motions(axes: Axes, motions: Float[Tensor, "b 2 2"], colour: str) -> None:
    """Draw all motions from one point, in the directions and lengths of the frames."""
    axes.set(xlim=(-_REACH, _REACH), ylim=(_REACH, -_REACH), xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set(visible=True, color=RULE)
    axes.plot(0, 0, "o", markersize=3, color=FAINT)
    for start, end in motions:
        _draw_arrow(axes, [0.0, 0.0], (_LONGER * (end - start)).tolist(), colour, width=1.0, outline=0)


def _draw_arrow(
    axes: Axes, start: Sequence[float], end: Sequence[float], colour: str, *, width: float, outline: float
) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": width, "mutation_scale": 4 + 3 * width}
    effects = [withStroke(linewidth=width + outline, foreground="white")] if outline else []
    style |= {"shrinkA": 0, "shrinkB": 0, "path_effects": effects}
    axes.annotate("", xy=(end[0], end[1]), xytext=(start[0], start[1]), arrowprops=style, annotation_clip=False)


def _draw_legend(figure: Figure, height: float) -> None:
    y, text = 1 - 0.06 / height, f"Arrows: motion within a clip of 0.1 s, {_LONGER} times as long"
    figure.text(_GAP / 2 / WIDTH, y, text, va="top", fontsize=8)
    for x, name, colour in ((0.5, "→ the robot's hand", _HAND), (0.7, "→ the ball", _BALL)):
        figure.text(x, y, name, va="top", fontsize=8, fontweight="bold", color=colour)
