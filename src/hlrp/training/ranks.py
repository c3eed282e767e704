"""The batch of all processes, as if it were on one.

Every function leaves its input as it is where there is one process only. All processes must hold batches of one size,
and their rows in the order of ranks are the rows of the whole batch (see `hlrp.training.step_batches`).

Shapes: b rows of this process, w processes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, distributed
from torch.distributed.nn import functional as differentiable


def rank_and_world_size() -> tuple[int, int]:
    """Number of this process and of all of them; (0, 1) where training is not distributed."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def several_ranks() -> bool:
    """Whether training is spread over processes."""
    return rank_and_world_size()[1] > 1


def mean_over_ranks(value: Tensor) -> Tensor:
    """Mean over processes, whose gradient is that of the mean: with DDP's averaging, that of one large batch."""
    if not several_ranks():
        return value
    total = differentiable.all_reduce(value.contiguous())
    return total / distributed.get_world_size()


def sum_over_ranks_(value: Tensor) -> None:
    """Sum over processes, in place, without a gradient."""
    if several_ranks():
        distributed.all_reduce(value)


def rows_of_all_ranks(rows: Shaped[Tensor, "b ..."]) -> Shaped[Tensor, "wb ..."]:
    """Rows of every process in the order of ranks, without a gradient."""
    if not several_ranks():
        return rows
    parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def normal_rows(rows: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """Standard normal numbers shaped like `rows`: this process's part of what the first one draws for all of them."""
    rank, world_size = rank_and_world_size()
    drawn = torch.randn(world_size * len(rows), *rows.shape[1:], dtype=rows.dtype, device=rows.device)
    return from_first_rank(drawn).chunk(world_size)[rank]


def seed_by_rank(seeded: int | None) -> int | None:
    """Let this process draw other random numbers than the first one, whose random state stays as it is.

    Some trainers, accelerate's among them, seed all processes alike: each would then drop the same units and draw the
    same noise for its own rows.

    Args:
        seeded: What the last call returned, None before the first: a state that still comes from it is left alone.

    Returns:
        The seed of torch's random state, where it was set here.
    """
    rank, _ = rank_and_world_size()
    if rank == 0 or torch.initial_seed() == seeded:
        return seeded
    # The next number of the state tells a resumed run from a new one, which began with the same seed.
    seeded = hash((torch.initial_seed(), int(torch.randint(2**31, ())), rank)) % 2**63
    torch.manual_seed(seeded)
    return seeded


def from_first_rank(value: Tensor) -> Tensor:
    """What the first process holds: for random draws that all must share."""
    if several_ranks():
        value = value.contiguous()
        distributed.broadcast(value, src=0)
    return value
