"""What counts in a batch, without a branch on data, and numbers for LeRobot's log.

Shapes: b batch, h chunk steps, a action dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def to_floats(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    """Copy scalar tensors to the host in one transfer: LeRobot's log drops everything that is no plain number."""
    return dict(zip(scalars, torch.stack([value.detach().float() for value in scalars.values()]).tolist(), strict=True))


def masked_mean(values: Float[Tensor, " b"], keep: Bool[Tensor, " b"]) -> Float[Tensor, ""]:
    """Mean of `values` where `keep` is true; 0 where nothing is kept."""
    return torch.where(keep, values, 0.0).sum() / keep.sum().clamp_min(1)


def action_target(
    actions: Float[Tensor, "b h a"], is_pad: Bool[Tensor, "b h"] | None, taught: Bool[Tensor, " b"]
) -> Float[Tensor, "b h a"]:
    """Actions to learn: 0 where none are known, and beyond the end of an episode the last one inside it.

    What the dataset holds in those places is not looked at, be it NaN. It would not count in the loss, but an expert
    that denoises whole chunks would see it.
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
    """Mean error over the steps inside the episode; 0 for samples that do not count."""
    keep = taught[:, None] if is_pad is None else taught[:, None] & ~is_pad
    return torch.where(keep, error, 0.0).sum(1) / keep.expand_as(error).sum(1).clamp_min(1)
