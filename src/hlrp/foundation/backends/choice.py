"""Rule by which a code is chosen among the k codes of a slot.

Shapes: g rows, each with its own probabilities of the codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hlrp.runtime.checks import require_numbers


@dataclass(frozen=True)
class Choice:
    """Rule by which a code is chosen from log-probabilities."""

    temperature: float | None = None
    """None: take the most likely code. A positive number: sample at this temperature."""
    top_k: int | None = None
    """Sample only among this many most likely codes. None: among all codes."""
    generator: torch.Generator | None = None
    """Source of randomness for sampling."""

    def __post_init__(self) -> None:
        require_numbers(self, "temperature", above=0)
        require_numbers(self, "top_k", at_least=1)

    def pick(self, log_p: Float[Tensor, "g k"]) -> Int[Tensor, "g 1"]:
        """Choose one code for each row."""
        if self.temperature is None:
            return log_p.argmax(-1, keepdim=True)
        if self.top_k is not None and self.top_k < log_p.shape[1]:
            least = log_p.topk(self.top_k).values[:, -1:]
            log_p = log_p.masked_fill(log_p < least, -torch.inf)
        return torch.multinomial((log_p / self.temperature).softmax(-1), 1, generator=self.generator)
