"""A training batch of stage 1.

Shapes: g action values of one transition, h*a.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor


@dataclass(frozen=True)
class ClipBatch:
    """Clips, random numbers for their augmentation, and the actions of the labelled clips."""

    frames: UInt8[Tensor, "b t m c h w"]
    """RGB in [0, 255]."""
    views: Float[Tensor, "b 4"]
    """Uniform random numbers in [-1, 1] for the encoder's view: contrast, brightness, shift along x and y. They are
    part of the batch so that they do not depend on the number of processes."""
    actions: Float[Tensor, "b n g"]
    """Standardized actions of each transition, chunk step by chunk step; 0 in unlabelled clips. g = 0 without action
    head."""
    labelled: Bool[Tensor, " b"]
    """Whether `actions` holds the actions of a clip."""

    def __post_init__(self) -> None:
        assert len(self.frames) == len(self.views) == len(self.actions) == len(self.labelled)

    def __len__(self) -> int:
        return len(self.frames)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ClipBatch:
        """A copy of this batch on `device`."""
        moved = {name: value.to(device, non_blocking=non_blocking) for name, value in vars(self).items()}
        return replace(self, **moved)

    def pin_memory(self) -> ClipBatch:
        """A copy of this batch in page-locked memory, from which copies to a GPU are faster."""
        return replace(self, **{name: value.pin_memory() for name, value in vars(self).items()})


def unlabelled(frames: UInt8[Tensor, "b t m c h w"]) -> ClipBatch:
    """A batch of `frames` without augmentation and without actions."""
    b, t = frames.shape[:2]
    return ClipBatch(frames, torch.zeros(b, 4), torch.zeros(b, t - 1, 0), torch.zeros(b, dtype=torch.bool))
