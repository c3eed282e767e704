"""Actions of clips whose episodes are labelled: which clips have them, and how they are standardized.

Shapes: clips the usable clips of a source, labelled the labelled episodes of a source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hlrp.data.dataset import episode_of_frame
from hlrp.data.episode_split import TrainingSource
from hlrp.data.sources import ClipSource


@dataclass(frozen=True)
class ActionStatistics:
    """Mean and standard deviation by which the actions of a `ClipBatch` were standardized."""

    mean: Float[Tensor, " a"]
    """Mean over the labelled training frames, in dataset units."""
    std: Float[Tensor, " a"]
    """Standard deviation over the labelled training frames, in dataset units; 1 for a dimension that never varies."""
    chunk_steps: int
    """Number of actions in one transition."""

    @property
    def size(self) -> int:
        """Action values g of one transition: chunk steps times action dimensions."""
        return self.chunk_steps * len(self.mean)

    def to_dict(self) -> dict[str, object]:
        """The statistics as plain values, for JSON."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist(), "chunk_steps": self.chunk_steps}

    def standardize(self, actions: Float[Tensor, "*b a"]) -> Float[Tensor, "*b a"]:
        """Actions in dataset units, minus the mean and divided by the standard deviation."""
        return (actions - self.mean) / self.std


def action_statistics(sources: Sequence[TrainingSource], offsets: Sequence[int]) -> ActionStatistics | None:
    """Mean and standard deviation of the actions of all labelled episodes; None if no episode is labelled.

    Args:
        sources: Sources of the run.
        offsets: Frames from one frame of a clip to the next, of each source.

    Raises:
        ValueError: If labelled episodes have no actions or are not trained on, or sources differ in the number of
            actions of a transition or in their dimensions.
    """
    labelled = [(part, offset) for part, offset in zip(sources, offsets, strict=True) if len(part.labelled)]
    if not labelled:
        return None
    parts = [_labelled_actions(part) for part, _ in labelled]
    shapes = {(offset, rows.shape[1]): part.source.name for (part, offset), rows in zip(labelled, parts, strict=True)}
    if len(shapes) > 1:
        differing = "; ".join(f"{name}: {steps} actions of {dims}" for (steps, dims), name in shapes.items())
        raise ValueError(
            f"labelled sources must agree on the actions of a transition, got {differing}; label only sources of one "
            "robot and frame rate"
        )
    actions = torch.cat(parts)
    std = actions.std(dim=0, correction=0)
    return ActionStatistics(actions.mean(dim=0), torch.where(std > 1e-6, std, 1.0), labelled[0][1])


def has_labelled_actions(part: TrainingSource, start: Int[Tensor, " clips"], length: int) -> Bool[Tensor, " clips"]:
    """For each frame in `start`: whether its episode is labelled and the `length` actions from it on are all finite."""
    labelled = torch.isin(episode_of_frame(part.source.bounds)[start], part.labelled)
    if part.source.actions is None:
        return labelled
    finite = part.source.actions.isfinite().all(1)
    return labelled & finite[start[:, None] + torch.arange(length)].all(1)


def episodes_with_actions(source: ClipSource, episodes: Int[Tensor, " e"]) -> Int[Tensor, " _"]:
    """Episodes among `episodes` that have at least one finite action; none if the source has no actions."""
    if source.actions is None:
        return episodes[:0]
    return episodes[torch.isin(episodes, episode_of_frame(source.bounds)[source.actions.isfinite().all(1)])]


def _labelled_actions(part: TrainingSource) -> Float[Tensor, "_ a"]:
    """Finite actions of the labelled episodes of one source.

    Raises:
        ValueError: If a labelled episode is not trained on, or there are no such actions.
    """
    if part.source.actions is None:
        raise ValueError(f"{part.source.name} has no actions, so none of its episodes can be labelled")
    unknown = part.labelled[~torch.isin(part.labelled, part.episodes)].tolist()
    if unknown:
        raise ValueError(
            f"episodes {unknown} of {part.source.name} cannot be labelled: they are held out or do not exist; "
            f"choose among {part.episodes.tolist()}"
        )
    actions = part.source.actions[torch.isin(episode_of_frame(part.source.bounds), part.labelled)]
    actions = actions[actions.isfinite().all(1)]
    if not len(actions):
        raise ValueError(
            f"every action of the labelled episodes {part.labelled.tolist()} of {part.source.name} is NaN or "
            "infinite; label episodes whose actions were recorded"
        )
    return actions
