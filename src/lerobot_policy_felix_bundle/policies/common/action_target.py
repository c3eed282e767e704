"""Actions to learn from a training batch, and the masks of samples and chunk steps that count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from lerobot.utils.constants import ACTION
from torch import Tensor

from .action_labels import ActionLabels


@dataclass(frozen=True)
class ActionTarget:
    """Normalized actions to learn, without unknown values."""

    actions: Float[Tensor, "b h a"]
    """Actions: 0 for samples that do not count; padded steps repeat the last step before them.

    The dataset's values in those places are replaced even though the loss masks them. They may be NaN, and an expert
    that denoises whole chunks gets them as input.
    """
    counted: Bool[Tensor, " b"]
    """True for samples whose actions are learned."""
    is_pad: Bool[Tensor, "b h"] | None
    """True for chunk steps that are not learned: after the episode's end or after the first unknown action."""

    @classmethod
    def of_batch(
        cls,
        batch: Mapping[str, Any],
        labels: ActionLabels | None,
        *,
        chunk_size: int,
        action_dim: int,
        codes_counted: Bool[Tensor, " b"] | None,
    ) -> ActionTarget:
        """Target actions of a training batch.

        Args:
            batch: A preprocessed training batch.
            labels: Mask of the frames with a known action; None if all are known.
            chunk_size: Steps h of a chunk.
            action_dim: Action dimensions a.
            codes_counted: `LatentActions.counted` of the batch if actions are learned with codes only, else None.

        Raises:
            ValueError: If the batch has fewer actions than a chunk.
        """
        actions = batch[ACTION]
        if actions.ndim == 2 and action_dim == 1:  # LeRobot omits the last axis of a one-dimensional action
            actions = actions[..., None]
        if actions.shape[1] < chunk_size:
            raise ValueError(f"the batch has {actions.shape[1]} actions of a sample, and chunk_size is {chunk_size}")
        is_pad, counted = _is_pad(batch, labels, chunk_size), _is_known(batch, labels)
        if codes_counted is not None:
            counted = counted & codes_counted
        known = torch.where(counted[:, None, None], actions[:, :chunk_size].float(), 0.0)
        return cls(known if is_pad is None else _repeat_last(known, is_pad), counted, is_pad)

    def mean(self, error: Float[Tensor, "b h"]) -> Float[Tensor, " b"]:
        """Mean error of each sample over its unpadded steps; 0 for samples that do not count."""
        keep = self.counted[:, None] if self.is_pad is None else self.counted[:, None] & ~self.is_pad
        return torch.where(keep, error, 0.0).sum(1) / keep.expand_as(error).sum(1).clamp_min(1)


def _is_known(batch: Mapping[str, Any], labels: ActionLabels | None) -> Bool[Tensor, " b"]:
    """Mask of the samples whose action at frame t is known."""
    if labels is None:
        return torch.ones(len(batch[ACTION]), dtype=torch.bool, device=batch[ACTION].device)
    return labels.lookup(batch["index"], 1)[:, 0]


def _is_pad(batch: Mapping[str, Any], labels: ActionLabels | None, chunk_size: int) -> Bool[Tensor, "b h"] | None:
    is_pad = batch.get(f"{ACTION}_is_pad")
    is_pad = None if is_pad is None else is_pad[:, :chunk_size]
    if labels is None:
        return is_pad
    unknown = ~labels.lookup(batch["index"], chunk_size)
    return (unknown if is_pad is None else unknown | is_pad).cumsum(1) > 0


def _repeat_last(actions: Float[Tensor, "b h a"], is_pad: Bool[Tensor, "b h"]) -> Float[Tensor, "b h a"]:
    last = ((~is_pad).sum(1, keepdim=True) - 1).clamp_min(0)
    step = torch.arange(actions.shape[1], device=actions.device).minimum(last)
    return actions.gather(1, step[..., None].expand_as(actions))
