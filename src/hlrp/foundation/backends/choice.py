"""Rule by which a code is chosen among the k codes of a slot, and the most likely labels of independent slots.

Shapes: g rows, each with its own probabilities of the codes; x candidate labels of one sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
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

    def pick_slots(self, log_p: Float[Tensor, "... k"]) -> Int[Tensor, "..."]:
        """Choose one code for each slot of every sample, where the slots are independent of each other."""
        return self.pick(log_p.flatten(0, -2)).view(log_p.shape[:-1])


def log_prob_of(log_p: Float[Tensor, "... k"], codes: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Log-probability of each of `codes`."""
    return log_p.gather(-1, codes[..., None])[..., 0]


def most_likely_labels(log_p: Float[Tensor, "b q k"], count: int) -> Int[Tensor, "b x q"]:
    """The `count` most likely labels of independent slots, best first; all k^q labels if there are fewer.

    Every prefix of a label among the best x is itself among the best x prefixes of its length. Keeping x prefixes per
    slot is therefore exact.
    """
    codes = torch.zeros(len(log_p), 1, 0, dtype=torch.int64, device=log_p.device)
    total = log_p.new_zeros(len(log_p), 1)
    k = log_p.shape[2]
    for slot in log_p.unbind(1):
        extended = rearrange(total[:, :, None] + slot[:, None], "b x k -> b (x k)")
        total, best = extended.topk(min(count, extended.shape[1]), dim=1)
        prefix = codes.gather(1, repeat(best // k, "b x -> b x q", q=codes.shape[2]))
        codes = torch.cat([prefix, (best % k)[..., None]], 2)
    return codes
