"""What stage 1 trains on.

Shapes: b clips, t frames, n = t-1 transitions, c = 3 channels for each camera, h w pixels, a action values of one
transition.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor


@dataclass(frozen=True)
class ClipBatch:
    """Clips, the draws that augment them, and the few actions that are known."""

    frames: UInt8[Tensor, "b t c h w"]
    """RGB in [0, 255]; several cameras follow each other along the channels."""
    views: Float[Tensor, "b 4"]
    """Uniform draws in [-1, 1] for the encoder's view: contrast, brightness, shift along x and y. They come with the
    clip so that a batch is the same however many processes share it."""
    actions: Float[Tensor, "b n a"]
    """Standardized actions of each transition, chunk step by chunk step; 0 where unknown, no values without a head."""
    labelled: Bool[Tensor, " b"]
    """Whether a clip's actions are known."""

    def __post_init__(self) -> None:
        assert len(self.frames) == len(self.views) == len(self.actions) == len(self.labelled)

    def __len__(self) -> int:
        return len(self.frames)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ClipBatch:
        """The same batch on `device`."""
        moved = {name: value.to(device, non_blocking=non_blocking) for name, value in vars(self).items()}
        return replace(self, **moved)

    def pin_memory(self) -> ClipBatch:
        """The same batch in page-locked memory."""
        return replace(self, **{name: value.pin_memory() for name, value in vars(self).items()})


def unlabelled(frames: UInt8[Tensor, "b t c h w"]) -> ClipBatch:
    """Clips as they are: no augmentation, no action."""
    b, t = frames.shape[:2]
    return ClipBatch(frames, torch.zeros(b, 4), torch.zeros(b, t - 1, 0), torch.zeros(b, dtype=torch.bool))
