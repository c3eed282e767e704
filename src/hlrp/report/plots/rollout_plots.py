"""Plots of rollouts: film strips of episodes, and the frames to which predicted codes should lead beside the real ones.

Shapes: i moments of an episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor

from hlrp.report.plots.images import mosaic
from hlrp.report.plots.latent_plots import overlay
from hlrp.report.plots.style import INK, figure_style, png

_MOMENTS = 6
"""Frames of every film strip."""
_LABEL_SHARE = 0.62
"""Width of the column of labels, as a share of the width of a picture."""


def film_strip_figure(films: Mapping[str, Sequence[UInt8[ndarray, "h w 3"]]]) -> bytes:
    """Draw a row for each film: its name, and frames evenly spread from the first to the last one.

    Args:
        films: Frames of every film, RGB in [0, 255], by name.

    Returns:
        A PNG file.

    Raises:
        ValueError: If there is no film.
    """
    if not films:
        raise ValueError("expected at least one film to show, got none")
    rows = [
        [frames[int(moment)] / 255 for moment in np.linspace(0, len(frames) - 1, _MOMENTS).round()]
        for frames in films.values()
    ]
    return _with_labels(rows, list(films), ())


@dataclass(frozen=True)
class ImaginedMoment:
    """A frame at time t, the frame to which the predicted codes should lead, and the one that the camera then saw."""

    name: str
    """Label of the row."""
    now: UInt8[ndarray, "h w 3"]
    """Frame t, RGB in [0, 255]."""
    imagined: UInt8[ndarray, "h w 3"]
    """Drawn by the LAQ's decoder from frame t and the predicted codes."""
    then: UInt8[ndarray, "h w 3"]
    """What the camera saw after the time that the codes span."""


def imagination_figure(moments: Sequence[ImaginedMoment]) -> bytes:
    """Draw a row for each moment: the three frames, then the imagined and the real change since frame t.

    In both maps of changes, unchanged pixels are grey, those that became brighter orange, and darker ones blue.

    Args:
        moments: The moments.

    Returns:
        A PNG file.

    Raises:
        ValueError: If there is no moment.
    """
    if not moments:
        raise ValueError("expected at least one moment to show, got none")
    titles = ("frame t", "imagined", "camera", "imagined change", "real change")
    rows = [[moment.now / 255, moment.imagined / 255, moment.then / 255, *_changes(moment)] for moment in moments]
    return _with_labels(rows, [moment.name for moment in moments], titles)


def _changes(moment: ImaginedMoment) -> tuple[ndarray, ndarray]:
    now, imagined, then = (_as_tensor(frame) for frame in (moment.now, moment.imagined, moment.then))
    return overlay(now, imagined)[0], overlay(now, then)[0]


def _as_tensor(frame: UInt8[ndarray, "h w 3"]) -> Tensor:
    return rearrange(torch.from_numpy(frame.copy()).float() / 255, "h w c -> 1 c h w")


def _with_labels(rows: Sequence[Sequence[ndarray]], names: Sequence[str], titles: Sequence[str]) -> bytes:
    """Draw rows of images, and left of each row the words of a task's name below each other."""
    with figure_style():
        figure, axes = mosaic(list(zip(*rows, strict=True)), titles, left=_LABEL_SHARE)
        for row, name in enumerate(names):
            words = name.removesuffix("-v3").replace("-", "\n")
            axes.text(0.02 - _LABEL_SHARE, -row - 0.5, words, ha="left", va="center", fontsize=8.5, color=INK)
        return png(figure)
