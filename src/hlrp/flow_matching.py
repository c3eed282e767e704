"""Flow matching (arXiv:2210.02747), with time as in pi0 (arXiv:2410.24164) and SmolVLA (arXiv:2506.01844).

Time runs from 1 (noise) to 0 (data) along the straight path x_t = t * noise + (1 - t) * data. A network learns the
velocity dx_t / dt = noise - data.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Velocity = Callable[[Float[Tensor, "b ..."], float], Float[Tensor, "b ..."]]
"""Function (point x_t, time t in [0, 1]) -> velocity at this point."""
Guide = Callable[[Float[Tensor, "b ..."], float, Velocity], Float[Tensor, "b ..."]]
"""Function (point x_t, time t, velocity function) -> corrected velocity at this point."""


def path_point(
    data: Float[Tensor, "b ..."], noise: Float[Tensor, "b ..."], time: Float[Tensor, "b ..."]
) -> Float[Tensor, "b ..."]:
    """Point x_t of the path; `time` is broadcast against `data` over its last axes."""
    t = time.reshape(*time.shape, *[1] * (data.ndim - time.ndim))
    return t * noise + (1 - t) * data


def integrate(
    velocity: Velocity, noise: Float[Tensor, "b ..."], *, steps: int, guide: Guide | None = None
) -> Float[Tensor, "b ..."]:
    """Integrate noise to data in `steps` Euler steps; `guide` may correct the velocity of every step."""
    x = noise
    for step in range(steps):
        time = 1 - step / steps
        x = x - (velocity(x, time) if guide is None else guide(x, time, velocity)) / steps
    return x


def waves(time: Float[Tensor, "*b"], rates: Float[Tensor, " _"]) -> Float[Tensor, "*b _"]:
    """Sines, then cosines, of `time` at angular `rates` in radians per unit of time."""
    angles = time.float()[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
