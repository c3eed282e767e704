"""Scalars for LeRobot's log, which drops everything that is not a plain number."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def to_floats(scalars: Mapping[str, Float[Tensor, ""]]) -> dict[str, float]:
    """Copy scalar tensors to the host in one transfer."""
    return dict(zip(scalars, torch.stack([value.detach().float() for value in scalars.values()]).tolist(), strict=True))


def masked_mean(values: Float[Tensor, " b"], keep: Bool[Tensor, " b"]) -> Float[Tensor, ""]:
    """Mean of `values` where `keep` is true; 0 where nothing is kept, with no branch on data."""
    return torch.where(keep, values, 0.0).sum() / keep.sum().clamp_min(1)
