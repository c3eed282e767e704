"""The batch of all processes, as if it were on one.

Every function leaves its input as it is where there is one process only. All processes must hold batches of one size.

Shapes: b rows of this process, w processes.
"""

from __future__ import annotations

import torch
from jaxtyping import Shaped
from torch import Tensor, distributed
from torch.distributed.nn import functional as differentiable


def several_ranks() -> bool:
    """Whether training is spread over processes."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


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


def from_first_rank(value: Tensor) -> Tensor:
    """What the first process holds: for random draws that all must share."""
    if several_ranks():
        value = value.contiguous()
        distributed.broadcast(value, src=0)
    return value
