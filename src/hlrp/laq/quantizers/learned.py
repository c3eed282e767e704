"""Base class of quantizers with learned codebooks, with remedies against codebook collapse.

A codebook collapses if some entries are never the nearest to a latent, since such entries get no update. There are
three remedies. Their state is saved in checkpoints and is the same on every process:

- Latents are standardized before they are compared with codes. Early in training all latents drift together, by much
  more than the distances between them. Only codes in use follow such a drift, and the others are left behind.
- Codes start on latents of the first training batch.
- Codes that are hardly used are placed anew on recent latents during training. (Restarting codes from data is from
  Jukebox, arXiv:2005.00341. LAPA, arXiv:2410.11758, copies used codes instead.)

Shapes: rows a number of latents, placed the codes that are placed anew.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hlrp.laq.quantizers.base import Quantized, Quantizer
from hlrp.laq.quantizers.standardization import BatchStandardization
from hlrp.latents import LatentSpec
from hlrp.training.ranks import from_first_rank, rows_of_all_ranks

CHECK_STEPS = 20
"""Smallest number of training steps between two checks for dead codes: a new code needs time to come into use."""
CHECK_USES = 16
"""Smallest average number of uses per code between two checks: with fewer, a good code may be unused by chance."""
DEAD_SHARE = 0.2
"""A code is dead if it is used at most this fraction of what equal usage of all codes would give."""
REMEMBERED = 8
"""Number of recent latents kept, as a multiple of the codebook size k."""
COMMITMENT = 0.01
"""Weight of the commitment loss, which pulls latents towards their codes. VQ-VAE's 0.25 prevents latents from growing
without bound; standardized latents cannot grow. With 0.25 this loss outweighs the reconstruction loss, and held-out
clips use fewer codes."""
SPREAD = 0.01
"""Noise on a code that is placed anew, relative to the standard deviation of the latents. It separates two codes that
are placed on the same latent."""


class LearnedCodebooks(Quantizer):
    """A quantizer that standardizes latents, and that places dead codes anew on recent latents during training."""

    recent: Tensor
    """Standardized latents of the last batches, (rows, s, v); the first rows are empty until as many are remembered."""
    remembered: Tensor
    """Number of filled rows of `recent`."""
    steps: Tensor
    """Training steps since the last check for dead codes; 0 before the first training step."""
    uses: Tensor
    """How often each code was the nearest since the last check for dead codes, (s, k)."""
    revived: Tensor
    """Whether each code was placed anew since the last call of `replaced_values`, (s, k); not saved in checkpoints."""

    def __init__(self, spec: LatentSpec) -> None:
        super().__init__()
        s, k = spec.code_seq_len, spec.codebook_size
        self.standardize = BatchStandardization(s, spec.code_dim)
        self.register_buffer("recent", torch.zeros(REMEMBERED * k, s, spec.code_dim))
        self.register_buffer("remembered", torch.zeros((), dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("uses", torch.zeros(s, k, dtype=torch.int64))
        self.register_buffer("revived", torch.zeros(s, k, dtype=torch.bool), persistent=False)

    def quantize(self, latents: Float[Tensor, "b s v"]) -> Quantized:
        latents = self.standardize(latents)
        if not self.training:
            return self.nearest(latents)
        self._remember(latents)
        self._revive()
        quantized = self.nearest(latents)
        self._count(quantized.ids)
        return quantized

    @abstractmethod
    def nearest(self, latents: Float[Tensor, "b s v"]) -> Quantized:
        """Replace each standardized vector by the nearest entry of its slot's codebook."""

    @abstractmethod
    def place(self, slot: int, which: Bool[Tensor, " k"], vectors: Float[Tensor, "placed v"]) -> None:
        """Set the codes of `slot` that are true in `which` to `vectors`, in their order."""

    @abstractmethod
    def values_of(self, codes: Bool[Tensor, "s k"]) -> dict[str, Bool[Tensor, "..."]]:
        """Masks of the values of `codes`, by the name of the parameter or buffer, and broadcastable to its shape."""

    def replaced_values(self) -> dict[str, Bool[Tensor, "..."]]:
        """Masks of the values that training replaced since the last call, so that weight averaging leaves them out; see
        `hlrp.training.callbacks.ReplacesValues`."""
        replaced = self.values_of(self.revived.clone())
        self.revived.zero_()
        return {"recent": torch.ones_like(self.recent, dtype=torch.bool), **replaced}

    def slot_inputs(self, latents: Float[Tensor, "rows s v"], slot: int) -> Float[Tensor, "rows v"]:
        """Vectors with which the codebook of `slot` is compared."""
        return latents[:, slot]

    @torch.no_grad()
    def _remember(self, latents: Float[Tensor, "b s v"]) -> None:
        rows = rows_of_all_ranks(latents.detach())
        self.recent.copy_(torch.cat([self.recent, rows])[-len(self.recent) :])
        self.remembered.add_(len(rows)).clamp_(max=len(self.recent))

    @torch.no_grad()
    def _count(self, ids: Int[Tensor, "b s"]) -> None:
        self.uses += F.one_hot(rows_of_all_ranks(ids), self.uses.shape[1]).sum(0)
        self.steps += 1

    @torch.no_grad()
    def _revive(self) -> None:
        """If a check is due, place dead codes anew on recent latents; before the first step, place all codes."""
        slots, k = self.uses.shape
        total = self.uses[0].sum()  # every slot has the same total, as each clip uses one code of each slot
        due = (self.steps == 0) | ((self.steps >= CHECK_STEPS) & (total >= CHECK_USES * k))
        if not due:
            return
        dead = k * self.uses <= DEAD_SHARE * total  # all true before the first step, where `uses` is 0
        latents = self.recent[-self.remembered :]
        for slot in range(slots):
            if dead[slot].any():
                self.place(slot, dead[slot], _draw(self.slot_inputs(latents, slot), int(dead[slot].sum())))
        self.revived |= dead
        self.uses.zero_()
        self.steps.fill_(1)  # not 0, which stands for a codebook before its first training step


def _draw(vectors: Float[Tensor, "rows v"], count: int) -> Float[Tensor, "placed v"]:
    """Sample `count` random rows of `vectors` and add a little noise; the result is the same on every process.

    No row is taken twice before every row is taken once.
    """
    order = torch.randperm(len(vectors), device=vectors.device)
    drawn = vectors[repeat(order, "rows -> (times rows)", times=-(-count // len(order)))[:count]]
    noise = SPREAD * vectors.std(0, correction=0) * torch.randn_like(drawn)
    return from_first_rank(drawn + noise)
