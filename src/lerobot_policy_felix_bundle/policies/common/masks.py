"""Masked means and targets without branches on tensor values, and numbers for LeRobot's log.

Shapes: b batch, h chunk steps, a action dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def to_floats(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    """Copy scalar tensors to the host in one transfer; LeRobot's log only accepts plain numbers."""
    return dict(zip(scalars, torch.stack([value.detach().float() for value in scalars.values()]).tolist(), strict=True))


def masked_mean(values: Float[Tensor, " b"], keep: Bool[Tensor, " b"]) -> Float[Tensor, ""]:
    """Mean of `values` where `keep` is true; 0 if no value is kept."""
    return torch.where(keep, values, 0.0).sum() / keep.sum().clamp_min(1)


def action_target(
    actions: Float[Tensor, "b h a"], is_pad: Bool[Tensor, "b h"] | None, taught: Bool[Tensor, " b"]
) -> Float[Tensor, "b h a"]:
    """Target actions: 0 for samples without known actions; padded steps repeat the last step before them.

    The dataset's values in those places are replaced even though the loss masks them. They may be NaN, and an expert
    that denoises whole chunks gets them as input.
    """
    target = torch.where(taught[:, None, None], actions.float(), 0.0)
    if is_pad is None:
        return target
    last = ((~is_pad).sum(1, keepdim=True) - 1).clamp_min(0)
    place = torch.arange(target.shape[1], device=target.device).minimum(last)
    return target.gather(1, place[..., None].expand_as(target))


def mean_over_steps(
    error: Float[Tensor, "b h"], is_pad: Bool[Tensor, "b h"] | None, taught: Bool[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Mean error of each sample over its unpadded steps; 0 for samples where `taught` is false."""
    keep = taught[:, None] if is_pad is None else taught[:, None] & ~is_pad
    return torch.where(keep, error, 0.0).sum(1) / keep.expand_as(error).sum(1).clamp_min(1)
