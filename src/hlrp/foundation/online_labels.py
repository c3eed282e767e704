"""Labels made while training: a frozen quantizer looks at the clip, the student at its first frame alone.

Shapes: b batch, t frames the quantizer sees, c h w a frame, s codes of one label, d width of a code vector.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor, nn

from hlrp.foundation.batch import FoundationBatch
from hlrp.latents import LatentActions


@runtime_checkable
class Teacher(Protocol):
    """What labels a clip: `hlrp.laq`'s `LatentActionQuantizer`."""

    def encode(self, clips: UInt8[Tensor, "b t c h w"], /) -> LatentActions:
        """Latent actions of clips."""
        ...


@dataclass(frozen=True)
class TaughtBatch:
    """Observations at time t, and apart from them the clips that only the quantizer sees."""

    inputs: FoundationBatch
    clips: UInt8[Tensor, "b t c h w"]
    """Frames t, t+offset, … of the quantizer's cameras at its own size; every clip lies inside its episode."""

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TaughtBatch:
        """Copy with every tensor on `device`."""
        return TaughtBatch(
            self.inputs.to(device, non_blocking=non_blocking), self.clips.to(device, non_blocking=non_blocking)
        )


class OnlineLabels:
    """Labels batches with a frozen quantizer. No module itself: its weights are no part of the model that learns."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        if isinstance(teacher, nn.Module):
            teacher.requires_grad_(False).eval()

    @torch.no_grad()
    def label(self, batch: TaughtBatch) -> FoundationBatch:
        """The observations of `batch` with codes and vectors of its clips."""
        if isinstance(self.teacher, nn.Module):
            self.teacher.to(batch.clips.device)  # does nothing after the first time
        latents = self.teacher.encode(batch.clips)
        return replace(
            batch.inputs,
            codes=rearrange(latents.codes, "b n s -> b (n s)"),
            vectors=rearrange(latents.vectors, "b n s d -> b (n s) d").float(),
            valid=latents.valid,
        )
