"""Latent labels made during training: a frozen LAQ encodes the clip, the trained VLA sees only frame t."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from hlrp.foundation.batch import FoundationBatch
from hlrp.latents import LatentActions


@runtime_checkable
class Teacher(Protocol):
    """Model that labels clips with latent actions, such as `hlrp.laq`'s `LatentActionQuantizer`."""

    def encode(self, clips: UInt8[Tensor, "b t m c h w"], /) -> LatentActions:
        """Encode clips of uint8 pixels in [0, 255] to latent actions."""
        ...


@dataclass(frozen=True)
class OnlineLabelBatch:
    """Observations at time t, with the clips that only the LAQ sees."""

    observations: FoundationBatch
    """Input of the VLA, without labels."""
    clips: UInt8[Tensor, "b t m c h w"]
    """Frames t, t+offset, … of the LAQ's cameras, at the LAQ's image size. No clip leaves its episode."""

    def __len__(self) -> int:
        return len(self.observations)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> OnlineLabelBatch:
        """Copy with every tensor on `device`."""
        return OnlineLabelBatch(
            self.observations.to(device, non_blocking=non_blocking), self.clips.to(device, non_blocking=non_blocking)
        )


class OnlineLabels:
    """Labels batches with a frozen LAQ.

    The class is no `nn.Module`, so that the LAQ's weights do not become part of the trained model.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        if isinstance(teacher, nn.Module):
            teacher.requires_grad_(False).eval()

    @torch.no_grad()
    def label(self, batch: OnlineLabelBatch) -> FoundationBatch:
        """Return the observations of `batch`, with the codes and latent vectors of its clips as labels."""
        if isinstance(self.teacher, nn.Module):
            self.teacher.to(batch.clips.device)  # moves the weights once; later calls change nothing
        return replace(batch.observations, labels=self.teacher.encode(batch.clips).as_labels())
