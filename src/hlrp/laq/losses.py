"""What the quantizer learns from: pixels, weighted towards those that moved.

Shapes: b clips, n transitions, c h w a frame.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def motion_weight(
    before: Float[Tensor, "b n c h w"], after: Float[Tensor, "b n c h w"], *, strength: float
) -> Float[Tensor, "b n 1 h w"]:
    """Weight 1 where nothing changed, up to 1 + `strength` where a pixel changed by half its range or more.

    A small arm covers few pixels: without this, a still background outweighs it.
    """
    change = (after - before).abs().amax(dim=2, keepdim=True)
    return 1 + strength * (2 * change).clamp(max=1)


def reconstruction_loss(
    predicted: Float[Tensor, "b n c h w"],
    before: Float[Tensor, "b n c h w"],
    after: Float[Tensor, "b n c h w"],
    *,
    motion_strength: float,
) -> Float[Tensor, ""]:
    """Motion-weighted mean squared error of `predicted` against `after`; pixels in [0, 1]."""
    weight = motion_weight(before, after, strength=motion_strength)
    return (weight * (predicted - after).square()).mean()
