"""Report of `hlrp-pseudo-label` as a single HTML file: errors of the predicted actions, and of their confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from hlrp.data.dataset import value_names
from hlrp.inverse_dynamics.pseudo_actions import HeldOutActions, PseudoActions
from hlrp.report.pages.parts import facts, figure, page, paragraph, section
from hlrp.report.plots.pseudo_label_plots import confidence_figure, dimension_error_figure, traces_figure

_TITLE = "Actions predicted from video"
_EPISODES = 3
"""Held-out episodes whose actions are drawn over time."""

_TRACES = "Episode {episode}: true actions, and the predictions of a model that was not trained on these frames."
_ERROR = (
    "Error of each action dimension on held-out frames. Dimensions near 1 cannot be predicted from these cameras: a "
    "policy that is trained on them learns little more than their mean."
)
_CONFIDENCE = (
    "Left: share of right actions among those of similar confidence; on the diagonal the confidence is a probability, "
    "below it the models are too sure. Larger dots stand for more frames. Right: the error of single actions."
)


def action_names(feature: Mapping[str, Any], size: int) -> list[str]:
    """Names of the action's dimensions in the metadata of a dataset, or their numbers."""
    names = value_names(feature)
    return names if names is not None and len(names) == size else [f"action {number}" for number in range(size)]


def render_pseudo_label_page(found: PseudoActions, names: list[str], bounds: Int[Tensor, "e 2"]) -> str:
    """Render the report as HTML.

    Args:
        found: Predicted actions, and what was measured on held-out frames.
        names: Names of the action's dimensions.
        bounds: Start and end of every episode.

    Returns:
        A complete HTML page.
    """
    held_out = found.held_out
    varying = np.flatnonzero(held_out.varies)
    shown = [names[number] for number in varying.tolist()]
    true, read = held_out.true[:, varying], held_out.read[:, varying]
    body = [
        f"<header><h1>{_TITLE}</h1>{facts(_facts(found))}</header>\n",
        section("What was measured", paragraph(_basis(held_out, names))),
        section("Over time", *_traces(held_out, true, read, shown, bounds)),
        section("By dimension", figure(_ERROR, dimension_error_figure(true, read, shown))),
        section(
            "Confidence",
            figure(
                _CONFIDENCE,
                confidence_figure(held_out.calibration, held_out.confidence, held_out.error, held_out.tolerance),
            ),
        ),
    ]
    return page(_TITLE, "".join(body))


def _facts(found: PseudoActions) -> list[tuple[str, str]]:
    measured = found.held_out.to_dict()
    return [
        (f"{int(found.read.sum())}", f"actions predicted from video, learned from {int(found.known.sum())} known ones"),
        (f"{measured['r2']:.2f}", "R² on held-out frames: explained variance of the actions; 1 is perfect"),
        (f"{measured['right']:.0%}", f"of held-out actions within {measured['tolerance']:g} standard deviations"),
        (f"{measured['calibration']['error']:.3f}", "calibration error of the confidence; 0 is perfect"),
    ]


def _basis(held_out: HeldOutActions, names: Sequence[str]) -> str:
    parts = (
        "whole episodes, of tasks of which other episodes were trained on"
        if held_out.unit == "episodes"
        else "short segments of the labelled episodes, since some task has only one of them. Such a model has seen the "
        "rest of the episode, so other episodes may be harder to predict"
    )
    constant = [name for name, varies in zip(names, held_out.varies, strict=True) if not varies]
    left_out = (
        f" Left out are dimensions that never vary in the labelled episodes: {', '.join(constant)}. Every "
        "predicted action holds their constant, also where the robot moved them."
        if constant
        else ""
    )
    return (
        f"All known actions were divided into {held_out.folds} parts. The actions of each part, "
        f"{len(held_out.index)} in all, were predicted by models that were trained on the other parts. Held out were "
        f"{parts}. The actions that were predicted for the dataset come from models that were trained on all known "
        f"actions.{left_out}"
    )


def _traces(
    held_out: HeldOutActions,
    true: np.ndarray,
    read: np.ndarray,
    names: Sequence[str],
    bounds: Int[Tensor, "e 2"],
) -> list[str]:
    episode = np.searchsorted(bounds[:, 1].numpy(), held_out.index, side="right")
    parts = []
    for number in np.unique(episode)[:_EPISODES]:
        inside = episode == number
        frame = held_out.index[inside] - int(bounds[number, 0])
        content = traces_figure(frame, true[inside], read[inside], names)
        parts.append(figure(_TRACES.format(episode=number), content))
    return parts
