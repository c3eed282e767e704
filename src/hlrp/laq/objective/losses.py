"""Loss terms of the quantizer: errors of predicted pixels, features and actions, weighted towards what moved.

Shapes: g action values of one transition, h*a; u width of a frozen vision model's features, on a grid y x of patches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor


def motion_weight(
    before: Float[Tensor, "*b c h w"], after: Float[Tensor, "*b c h w"], *, strength: float
) -> Float[Tensor, "*b 1 h w"]:
    """Loss weight of each pixel: 1 if it did not change, up to 1 + `strength` if it changed by 0.5 or more, of [0, 1].

    A robot arm covers few pixels: without this weight, the still background would dominate the loss.
    """
    change = (after - before).abs().amax(dim=-3, keepdim=True)
    return 1 + strength * (2 * change).clamp(max=1)


def reconstruction_loss(
    predicted: Float[Tensor, "b n m c h w"],
    before: Float[Tensor, "b n m c h w"],
    after: Float[Tensor, "b n m c h w"],
    *,
    motion_strength: float,
) -> Float[Tensor, ""]:
    """Motion-weighted mean squared error of `predicted` against `after`; pixels in [0, 1]."""
    weight = motion_weight(before, after, strength=motion_strength)
    return (weight * (predicted - after).square()).mean()


def coarse_loss(
    predicted: Float[Tensor, "b n m c h w"],
    before: Float[Tensor, "b n m c h w"],
    after: Float[Tensor, "b n m c h w"],
    *,
    motion_strength: float,
) -> Float[Tensor, ""]:
    """Motion-weighted squared error after errors are averaged over squares of 4 and of 8 pixels, times 4 and 8.

    Pixel by pixel, an arm that is predicted two pixels beside its true place costs as much as no arm at all. Averaging
    over squares rewards a prediction that is nearly right, so that codes describe positions rather than sharp edges.
    """
    error, before, after = (
        rearrange(frames, "b n m c h w -> (b n m) c h w") for frames in (predicted - after, before, after)
    )
    weight = motion_weight(before, after, strength=motion_strength)
    terms = [side * (F.avg_pool2d(weight, side) * F.avg_pool2d(error, side).square()).mean() for side in _COARSE_SIDES]
    return torch.stack(terms).sum()


_COARSE_SIDES = (4, 8)
"""Sides, in pixels, of the squares over which `coarse_loss` averages errors."""


def feature_loss(
    predicted: Float[Tensor, "b n m u y x"], change: Float[Tensor, "b n m u y x"], *, motion_strength: float
) -> Float[Tensor, ""]:
    """Mean squared error of the predicted change of features, weighted by how much each grid cell changed.

    Args:
        predicted: Predicted change.
        change: True change, of features with unit variance.
        motion_strength: Extra weight of the grid cell that changed most in its frame; others get less.
    """
    amount = reduce(change.square(), "b n m u y x -> b n m 1 y x", "mean")
    share = amount / amount.amax(dim=(-2, -1), keepdim=True).clamp_min(1e-6)
    return ((1 + motion_strength * share) * (predicted - change).square()).mean()


def labelled_mean_square(
    predicted: Float[Tensor, "b n g"], truth: Float[Tensor, "b n g"], labelled: Bool[Tensor, " b"], total: Tensor
) -> Float[Tensor, ""]:
    """Sum of the mean squared errors of labelled clips, divided by `total`; unlabelled clips get no gradient."""
    error = reduce((predicted - truth).square(), "b n g -> b", "mean")
    return torch.where(labelled, error, 0.0).sum() / total.clamp_min(1)
