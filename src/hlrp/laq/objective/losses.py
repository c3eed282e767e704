"""What the quantizer learns from: changes of pixels, features or flow, weighted towards what moved.

Shapes: b clips, n transitions, m cameras, c h w a frame, f y x a frozen encoder's features, a action values of one
transition.
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
    """Weight 1 where nothing changed, up to 1 + `strength` where a pixel changed by half its range or more.

    A small arm covers few pixels: without this, a still background outweighs it.
    """
    change = (after - before).abs().amax(dim=-3, keepdim=True)
    return 1 + strength * (2 * change).clamp(max=1)


def reconstruction_loss(
    predicted: Float[Tensor, "b n c h w"],
    before: Float[Tensor, "b n c h w"],
    after: Float[Tensor, "b n c h w"],
    *,
    motion_strength: float,
) -> Float[Tensor, ""]:
    """Motion-weighted mean squared error of `predicted` against `after`; pixels in [0, 1], 3 channels a camera."""
    predicted, before, after = (
        rearrange(frames, "b n (m c) h w -> b n m c h w", c=3) for frames in (predicted, before, after)
    )
    weight = motion_weight(before, after, strength=motion_strength)
    return (weight * (predicted - after).square()).mean()


def coarse_loss(
    predicted: Float[Tensor, "b n c h w"],
    before: Float[Tensor, "b n c h w"],
    after: Float[Tensor, "b n c h w"],
    *,
    motion_strength: float,
) -> Float[Tensor, ""]:
    """`reconstruction_loss` of errors averaged over squares of 4 and of 8 pixels, each times its side.

    An arm that is drawn two pixels beside its place costs as much, pixel by pixel, as one that is not drawn at all;
    averaged, being nearly right is worth something, and codes are about where things go rather than about their edges.
    """
    error, before, after = (
        rearrange(frames, "b n (m c) h w -> (b n m) c h w", c=3) for frames in (predicted - after, before, after)
    )
    weight = motion_weight(before, after, strength=motion_strength)
    terms = [side * (F.avg_pool2d(weight, side) * F.avg_pool2d(error, side).square()).mean() for side in _COARSE_SIDES]
    return torch.stack(terms).sum()


_COARSE_SIDES = (4, 8)


def feature_loss(
    predicted: Float[Tensor, "b n m f y x"], change: Float[Tensor, "b n m f y x"], *, motion_strength: float
) -> Float[Tensor, ""]:
    """Mean squared error of the predicted change of features, weighted by how much each place changed in its frame.

    Args:
        predicted: Predicted change.
        change: True change of features of unit variance.
        motion_strength: Extra weight of the place that changed most.
    """
    amount = reduce(change.square(), "b n m f y x -> b n m 1 y x", "mean")
    share = amount / amount.amax(dim=(-2, -1), keepdim=True).clamp_min(1e-6)
    return ((1 + motion_strength * share) * (predicted - change).square()).mean()


def labelled_mean_square(
    predicted: Float[Tensor, "b n a"], truth: Float[Tensor, "b n a"], labelled: Bool[Tensor, " b"], total: Tensor
) -> Float[Tensor, ""]:
    """Squared error over labelled clips, divided by `total` of them; an unlabelled clip has no gradient at all."""
    error = reduce((predicted - truth).square(), "b n a -> b", "mean")
    return torch.where(labelled, error, 0.0).sum() / total.clamp_min(1)
