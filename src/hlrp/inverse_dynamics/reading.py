"""Predict the action of every frame with an ensemble of inverse dynamics models.

Each clip gives the actions of all its steps, so that every action is predicted from several overlapping clips. The mean
of these predictions is the action; their spread measures how unsure the models are. Clips of a single action do not
overlap: the spread is then that of the members' predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hlrp.inverse_dynamics.clips import ActionClips
from hlrp.inverse_dynamics.network import InverseDynamicsNetwork
from hlrp.runtime.progress import progress

_BATCH_SIZE = 256
"""Clips per forward pass."""


@dataclass(frozen=True)
class ReadActions:
    """Actions that were predicted from video, standardized."""

    actions: Float[Tensor, "f a"]
    """0, the mean of the known actions, where no clip covers a frame."""
    spread: Float[Tensor, " f"]
    """Standard deviation of the predictions of a frame's action by overlapping clips, root mean square over members and
    dimensions that vary. A frame that a single clip covers gets the root mean square of the other frames; 0 if no frame
    is covered by several clips. If clips span a single action: standard deviation of the members' predictions, root
    mean square over dimensions that vary; 0 for a single member."""
    covered: Bool[Tensor, " f"]
    """Whether any clip covers the frame's action; false at the end of a scene, whose last action shows no effect."""


def read_actions(
    networks: Sequence[InverseDynamicsNetwork], clips: ActionClips, wanted: Bool[Tensor, " f"], *, title: str
) -> ReadActions:
    """Predict the actions of the frames `wanted` from all clips that cover them.

    Args:
        networks: Members of the ensemble, trained on `clips`.
        clips: Clips of the source.
        wanted: True for frames whose actions are to be predicted.
        title: Text of the progress bar.
    """
    starts = clips.starts[wanted[clips.starts[:, None] + clips.steps].any(1)]
    found = [_read(network, clips, starts, title=title) for network in networks]
    actions, count = torch.stack([part.mean for part in found]), found[0].count
    if clips.overlap:
        variance = _variance_over_clips(found, clips.scale.varies, wanted)
    else:
        variance = actions[..., clips.scale.varies].var(0, correction=min(1, len(found) - 1)).mean(1)
    return ReadActions(actions.mean(0), variance.sqrt(), wanted & (count > 0))


def _variance_over_clips(
    found: Sequence[_Predictions], varies: Bool[Tensor, " a"], wanted: Bool[Tensor, " f"]
) -> Float[Tensor, " f"]:
    """Variance of the predictions of each frame's action by overlapping clips, mean over members and dimensions."""
    count = found[0].count
    variance = torch.stack([part.variance[:, varies].mean(1) for part in found]).mean(0)
    compared = wanted & (count > 1)
    if compared.any():  # a single prediction, as at both ends of an episode, agrees with itself however wrong it is
        variance = torch.where(count > 1, variance, variance[compared].mean())
    return variance


@dataclass(frozen=True)
class _Predictions:
    """Mean and unbiased variance of the predictions of one network over the clips that cover a frame."""

    mean: Float[Tensor, "f a"]
    variance: Float[Tensor, "f a"]
    count: Int[Tensor, " f"]


@torch.inference_mode()
def _read(
    network: InverseDynamicsNetwork, clips: ActionClips, starts: Int[Tensor, " _"], *, title: str
) -> _Predictions:
    device = next(network.parameters()).device
    total, squares = torch.zeros(2, *clips.actions.shape, dtype=torch.float64)
    count = torch.zeros(len(total), dtype=torch.int64)
    for chunk in progress(starts.split(_BATCH_SIZE), title):
        predicted = network(clips.frames(chunk).to(device).float() / 255).cpu().double().flatten(0, 1)
        index = (chunk[:, None] + clips.steps).flatten()
        total.index_add_(0, index, predicted)
        squares.index_add_(0, index, predicted.square())
        count.index_add_(0, index, torch.ones_like(index))
    number = count.clamp_min(1)[:, None]
    mean = total / number
    # Unbiased, since few clips cover the frames at both ends of an episode.
    variance = (squares / number - mean.square()).clamp_min(0) * number / (number - 1).clamp_min(1)
    return _Predictions(mean.float(), variance.float(), count)
