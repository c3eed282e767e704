"""Pseudo-labels: predict the unknown actions of a source, with a confidence, from few frames with known actions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hlrp.data.sources import ClipSource
from hlrp.inverse_dynamics.clips import ActionClips, Folds, make_folds, with_frames_between
from hlrp.inverse_dynamics.confidence import Calibration, Confidence, held_out_confidence, r_squared
from hlrp.inverse_dynamics.config import InverseDynamicsConfig
from hlrp.inverse_dynamics.network import InverseDynamicsNetwork
from hlrp.inverse_dynamics.reading import ReadActions, read_actions
from hlrp.inverse_dynamics.training import new_network, train_network
from hlrp.laq.model import LatentActionQuantizer

_Train = Callable[[Bool[Tensor, " f"], int, str], InverseDynamicsNetwork]
"""Function that trains a model, given the held-out frames, the number of the model and a title for its progress bar."""


@dataclass(frozen=True)
class HeldOutActions:
    """Known actions beside the predictions of models that were not trained on them, in the order of the frames."""

    index: Int[np.ndarray, " f"]
    """Absolute frame index."""
    true: Float[np.ndarray, "f a"]
    """Known actions, in dataset units."""
    read: Float[np.ndarray, "f a"]
    """Predicted actions, in dataset units."""
    error: Float[np.ndarray, " f"]
    """Root mean square error over dimensions that vary, in standard deviations of the known actions."""
    confidence: Float[np.ndarray, " f"]
    """Confidence, by a function that was fitted on the other folds."""
    unit: str
    """What was held out together: episodes or segments."""
    folds: int
    """Number of folds."""
    tolerance: float
    """Error up to which an action counts as right."""
    varies: Bool[np.ndarray, " a"]
    """Which dimensions vary; the others are left out of every number."""

    @property
    def calibration(self) -> Calibration:
        """Calibration of the confidence."""
        return Calibration.of(self.confidence, self.error <= self.tolerance)

    def to_dict(self) -> dict[str, Any]:
        """What was measured, as plain values for JSON."""
        scale = self.true[:, self.varies].std(0)
        explained, each = r_squared(self.true[:, self.varies] / scale, self.read[:, self.varies] / scale)
        dimensions = np.flatnonzero(self.varies).tolist()
        return {
            "held_out": self.unit,
            "folds": self.folds,
            "frames": len(self.index),
            "r2": explained,
            "r2_by_dimension": dict(zip(map(str, dimensions), each, strict=True)),
            "tolerance": self.tolerance,
            "right": float((self.error <= self.tolerance).mean()),
            "calibration": self.calibration.to_dict(),
        }


@dataclass(frozen=True)
class PseudoActions:
    """An action for every frame but those of episodes that are shorter than a clip."""

    actions: Float[Tensor, "f a"]
    """In dataset units: the known action where there is one, else the predicted action. A placeholder, the mean of the
    known actions, where `has_action` is false."""
    confidence: Float[Tensor, " f"]
    """1 for known actions; else the probability that the action is right; 0 if no clip covers the frame."""
    known: Bool[Tensor, " f"]
    """Whether the action is known, and therefore not predicted."""
    has_action: Bool[Tensor, " f"]
    """Whether the action is known or was predicted. False in episodes that are shorter than a clip, from which nothing
    can be predicted, up to their first known action."""
    held_out: HeldOutActions

    @property
    def read(self) -> Bool[Tensor, " f"]:
        """Whether the action was predicted from video; at the end of an episode it repeats the previous action."""
        return self.has_action & ~self.known


def pseudo_actions(
    source: ClipSource,
    known: Bool[Tensor, " f"],
    *,
    deltas: list[int],
    image_size: tuple[int, int],
    config: InverseDynamicsConfig,
    laq: LatentActionQuantizer | None,
    instructions: list[str] | None = None,
    device: str = "cpu",
) -> PseudoActions:
    """Train inverse dynamics models on the known actions of `source`, and predict the action of every other frame.

    First, one model per fold is trained on the other folds, to measure errors on held-out actions and to calibrate the
    confidence. Then `config.members` models are trained on all known actions; they predict the remaining actions.
    If a clip spans a single action, the confidence rests on how much these models disagree, and as many are trained per
    fold.

    Args:
        source: Frames, episodes and actions.
        known: True for frames whose action may be used.
        deltas: Frames of the LAQ's clips relative to their first frame, of which the last is that of the clips here.
        image_size: Height and width of the frames of `source`.
        config: Options of the models and their training.
        laq: Quantizer whose encoder the models start from; None for models from scratch.
        instructions: Instruction of every frame, by which folds are balanced; None for one task.
        device: Device of training and prediction.

    Raises:
        ValueError: If too few actions are known.
    """
    clips = ActionClips(source, known, with_frames_between(deltas, config.frames))
    folds = make_folds(
        source.bounds, clips.learnable, instructions, count=config.folds, segment=clips.chunk_steps, seed=config.seed
    )
    if folds.count < 2:
        raise ValueError(
            f"the known actions of {source.name} cannot be divided, so that no error could be measured on held-out "
            "actions; give at least two episodes actions, or one with more frames"
        )

    def trained(held_out: Bool[Tensor, " f"], number: int, title: str) -> InverseDynamicsNetwork:
        with torch.random.fork_rng():
            torch.manual_seed(config.seed + number)
            network = new_network(clips, config, laq, laq_deltas=deltas, image_size=image_size)
        return train_network(network, clips, held_out, config, seed=config.seed + number, device=device, title=title)

    held_out, confidence = _cross_validated(clips, folds, config, trained)
    nothing = torch.zeros_like(known)
    members = [trained(nothing, number, f"model {number + 1} of {config.members}") for number in range(config.members)]
    found = read_actions(members, clips, ~known, title="predicting actions")
    return _filled(clips, found, confidence, held_out)


def _cross_validated(
    clips: ActionClips, folds: Folds, config: InverseDynamicsConfig, trained: _Train
) -> tuple[HeldOutActions, Confidence]:
    """Predict every known action by models that were not trained on it, and fit the confidence to the errors."""
    # Overlapping clips show the spread of one model; clips of one action only that of as many models as predict later.
    models = 1 if clips.overlap else config.members
    read, spread = torch.zeros_like(clips.actions), torch.zeros(len(clips.actions))
    covered = torch.zeros_like(clips.known)
    for number in range(folds.count):
        inside, title = folds.number == number, f"fold {number + 1} of {folds.count}"
        networks = [trained(inside, config.members + number + folds.count * model, title) for model in range(models)]
        found = read_actions(networks, clips, inside, title="predicting held-out actions")
        read[found.covered], spread[found.covered] = found.actions[found.covered], found.spread[found.covered]
        covered |= found.covered
    scale, index = clips.scale, covered.nonzero()[:, 0]
    error = (read - clips.actions)[index][:, scale.varies].square().mean(1).sqrt().numpy()
    right, spread_of = error <= config.tolerance, spread[index].numpy()
    held_out = HeldOutActions(
        index=index.numpy(),
        true=scale.restore(clips.actions[index]).numpy(),
        read=scale.restore(read[index]).numpy(),
        error=error,
        confidence=held_out_confidence(spread_of, right, folds.number[index].numpy()),
        unit=folds.unit,
        folds=folds.count,
        tolerance=config.tolerance,
        varies=scale.varies.numpy(),
    )
    return held_out, Confidence.fit(spread_of, right)


def _filled(clips: ActionClips, found: ReadActions, confidence: Confidence, held_out: HeldOutActions) -> PseudoActions:
    """Known actions where there are any, predicted actions elsewhere.

    A frame that no clip covers repeats the one before; where an episode has none before it, there is no action.
    """
    known, actions = clips.known, clips.source.actions
    assert actions is not None, "checked by ActionClips"
    sure = torch.from_numpy(confidence(found.spread.numpy())).float()
    sure = torch.where(known, 1.0, torch.where(found.covered, sure, 0.0))
    values = torch.where(known[:, None], actions, clips.scale.restore(found.actions))
    place = torch.where(known | found.covered, torch.arange(len(known)), -1)
    for first, end in clips.source.bounds.tolist():
        place[first:end] = place[first:end].cummax(0).values
    has_action = place >= 0
    values = torch.where(has_action[:, None], values[place.clamp_min(0)], values)
    return PseudoActions(values, sure, known, has_action, held_out)
