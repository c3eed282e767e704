"""Random numbers for the rows of a training batch that do not depend on how the batch is divided among processes.

A number is a hash of the training step and of the row's position in the global batch; no random state is used. One
process, several processes and accumulated passes therefore draw the same numbers for the same row, and so does a
resumed run. All computation stays on the device of the rows.

Shapes: b rows of this process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hlrp.training.ranks import rank_and_world_size
from hlrp.training.step_batches import part_rows

_TWO_31 = 2**31
_STREAMS = 2
"""Number of independent random sequences in every step; see the argument `stream`."""


@dataclass(frozen=True)
class RowDraws:
    """Source of random numbers for some rows of a global batch."""

    step: Int[Tensor, ""]
    """Seed of the numbers: the training step, or -1 for validation."""
    rows: Int[Tensor, " b"]
    """Position of each row in the global batch."""
    batch_size: int
    """Number of rows of the global batch."""

    @classmethod
    def of_part(cls, step: int, index: int, parts: int, *, batch_size: int) -> RowDraws:
        """Random numbers for part `index` of `parts` of the batch of `step`; see `StepBatches.part`."""
        rows = torch.arange(batch_size)[part_rows(batch_size, index, parts)]
        return cls(torch.tensor(step), rows, batch_size)

    @classmethod
    def of_process(cls, step: Int[Tensor, ""], num_rows: int) -> RowDraws:
        """Random numbers for the rows of this process, if every process holds `num_rows` rows of the global batch."""
        rank, world_size = rank_and_world_size()
        rows = torch.arange(num_rows, device=step.device) + rank * num_rows
        return cls(step.clone(), rows, world_size * num_rows)

    @classmethod
    def of_validation(cls, num_rows: int, *, device: torch.device) -> RowDraws:
        """Random numbers for a validation batch: the same in every validation, so that losses can be compared."""
        return cls(torch.tensor(-1, device=device), torch.arange(num_rows, device=device), num_rows)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> RowDraws:
        """A copy with all tensors on `device`."""
        step, rows = (value.to(device, non_blocking=non_blocking) for value in (self.step, self.rows))
        return replace(self, step=step, rows=rows)

    def integers(self, count: int, *, high: int) -> Int[Tensor, "b {count}"]:
        """Draw `count` integers in [0, high) for every row, nearly uniformly."""
        sample = self.step * self.batch_size + self.rows
        return _scramble(sample[:, None] * count + self._numbered(count), rounds=2) % high

    def uniform(self, *shape: int, stream: int) -> Float[Tensor, "b ..."]:
        """Draw uniform numbers in (0, 1] for every row.

        Args:
            *shape: Shape of the numbers of one row.
            stream: Number of the random sequence, 0 or 1; numbers of different streams are independent.
        """
        return self._uniform(self._places(shape), stream)

    def normal(self, *shape: int, stream: int) -> Float[Tensor, "b ..."]:
        """Draw standard normal numbers for every row, by the Box-Muller transform; arguments as for `uniform`."""
        places = self._places(shape)
        radius, angle = (self._uniform(places + half * self.batch_size * math.prod(shape), stream) for half in (0, 1))
        return (-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()

    def _places(self, shape: tuple[int, ...]) -> Int[Tensor, "b ..."]:
        """Position of every number among all numbers of the global batch."""
        size = math.prod(shape)
        return (self.rows[:, None] * size + self._numbered(size)).view(len(self.rows), *shape)

    def _uniform(self, places: Int[Tensor, "..."], stream: int) -> Float[Tensor, "..."]:
        assert 0 <= stream < _STREAMS
        draw = _STREAMS * (self.step + 1) + stream
        # The hash of `draw` gives every step and stream another starting point among the 2^31 hash values.
        return (_scramble(places + _scramble(draw)).float() + 0.5) / _TWO_31

    def _numbered(self, count: int) -> Int[Tensor, " {count}"]:
        return torch.arange(count, device=self.rows.device)


def _scramble(numbers: Int[Tensor, "..."], *, rounds: int = 3) -> Int[Tensor, "..."]:
    """Integer hash that spreads consecutive numbers over [0, 2^31) by xor-shifts and multiplications."""
    for factor in (0x45D9F3B, 0x119DE1F3, 0x2C1B3C6D)[:rounds]:
        numbers = ((numbers ^ (numbers >> 16)) * factor) & 0x7FFFFFFF
    return numbers ^ (numbers >> 16)
