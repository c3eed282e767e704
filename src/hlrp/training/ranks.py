"""Operations over the batches of all training processes, so that results do not depend on the number of processes.

With a single process, all functions return their input unchanged. All processes must hold batches of the same size; the
rows of all processes, in the order of ranks, are the rows of the global batch (see `hlrp.training.step_batches`).

Shapes: b rows of this process, pb rows of all processes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, distributed
from torch.distributed.nn import functional as differentiable


def rank_and_world_size() -> tuple[int, int]:
    """Rank of this process and number of processes; (0, 1) if training is not distributed."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def several_ranks() -> bool:
    """Whether training runs on more than one process."""
    return rank_and_world_size()[1] > 1


def mean_over_ranks(value: Tensor) -> Tensor:
    """Mean over processes, with gradients: after DDP averages them, gradients equal those of the global batch."""
    if not several_ranks():
        return value
    total = differentiable.all_reduce(value.contiguous())
    return total / distributed.get_world_size()


def sum_over_ranks_(value: Tensor) -> None:
    """Replace `value` by its sum over processes, in place and without gradient."""
    if several_ranks():
        distributed.all_reduce(value)


def rows_of_all_ranks(rows: Shaped[Tensor, "b ..."]) -> Shaped[Tensor, "pb ..."]:
    """Concatenate the rows of all processes in the order of ranks, without gradient."""
    if not several_ranks():
        return rows
    parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def normal_rows(rows: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """Standard normal numbers in the shape of `rows`. The first process draws them for the rows of all processes."""
    rank, world_size = rank_and_world_size()
    drawn = torch.randn(world_size * len(rows), *rows.shape[1:], dtype=rows.dtype, device=rows.device)
    return from_first_rank(drawn).chunk(world_size)[rank]


def from_first_rank(value: Tensor) -> Tensor:
    """Return the `value` of the first process on all processes, such as for random numbers that all must share."""
    if several_ranks():
        value = value.contiguous()
        distributed.broadcast(value, src=0)
    return value
