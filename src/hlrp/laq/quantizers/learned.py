"""Learned codebooks that start where the encoder is, and stay there.

A codebook collapses when some entries are never the nearest: nothing then moves them. Three remedies, part of the
checkpoint and the same on every process:

- latents are standardized first, and codes live among standardized latents. Early in training all latents drift
  together, by many times what sets them apart: only the codes in use follow, and the others are left behind;
- in training, entries start on latents of the first batch;
- in training, an entry that is hardly used is placed anew on a recent latent. (Restarting codes from the data is from
  Jukebox, arXiv:2005.00341; LAPA, arXiv:2410.11758, copies entries that are used instead.)

Shapes: b batch, s code slots, k codebook entries, v code width, m remembered latents.
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
"""Fewest training steps between two checks for dead codes: a new code needs time to be used."""
CHECK_USES = 16
"""Fewest uses per code, on average, between two checks: in small batches a good code is often missing by chance."""
DEAD_SHARE = 0.2
"""A code is dead when it is used less than this share of an equal share."""
REMEMBERED = 8
"""Recent latents kept for each code."""
COMMITMENT = 0.01
"""Weight of the pull of latents towards their codes, where a quantizer has one. Standardized latents cannot run away,
which is what VQ-VAE's 0.25 prevents; at 0.25 it outweighs the reconstruction, and held-out clips use fewer codes."""
SPREAD = 0.01
"""Noise on a code that is placed anew, over the spread of the latents: two codes on one latent then part."""


class LearnedCodebooks(Quantizer):
    """A quantizer whose dead codes are revived."""

    recent: Tensor
    """Standardized latents of the last batches, (m, s, v); the first rows are empty until `remembered` reaches m."""
    remembered: Tensor
    steps: Tensor
    """Training steps since dead codes were looked for; 0 before the first step."""
    uses: Tensor
    """How often each code was the nearest since then, (s, k)."""
    revived: Tensor
    """Codes placed anew since `replaced_values` was last asked, (s, k); no part of a checkpoint."""

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
        """Replace each vector by the nearest entry of its slot's codebook."""

    @abstractmethod
    def place(self, slot: int, which: Bool[Tensor, " k"], vectors: Float[Tensor, "d v"]) -> None:
        """Put the codes `which` of a slot at `vectors`, one each."""

    @abstractmethod
    def values_of(self, codes: Bool[Tensor, "s k"]) -> dict[str, Bool[Tensor, "..."]]:
        """Where the values of `codes` are: masks, broadcastable to the parameters and buffers that hold them."""

    def replaced_values(self) -> dict[str, Bool[Tensor, "..."]]:
        """Values that were replaced in training since the last call, of which an average over time means nothing."""
        replaced = self.values_of(self.revived.clone())
        self.revived.zero_()
        return {"recent": torch.ones_like(self.recent, dtype=torch.bool), **replaced}

    def slot_inputs(self, latents: Float[Tensor, "m s v"], slot: int) -> Float[Tensor, "m v"]:
        """What the codebook of `slot` is compared to."""
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
        """Place dead codes anew, and all codes before the first step."""
        slots, k = self.uses.shape
        total = self.uses[0].sum()  # the same in every slot
        due = (self.steps == 0) | ((self.steps >= CHECK_STEPS) & (total >= CHECK_USES * k))
        if not due:
            return
        dead = k * self.uses <= DEAD_SHARE * total  # all of them where none was used yet
        latents = self.recent[-self.remembered :]
        for slot in range(slots):
            if dead[slot].any():
                self.place(slot, dead[slot], _draw(self.slot_inputs(latents, slot), int(dead[slot].sum())))
        self.revived |= dead
        self.uses.zero_()
        self.steps.fill_(1)  # 0 is a codebook that saw no data


def _draw(vectors: Float[Tensor, "m v"], count: int) -> Float[Tensor, "d v"]:
    """Random vectors, none twice before each was drawn once, with a little noise; the same on every process."""
    order = torch.randperm(len(vectors), device=vectors.device)
    drawn = vectors[repeat(order, "m -> (times m)", times=-(-count // len(order)))[:count]]
    noise = SPREAD * vectors.std(0, correction=0) * torch.randn_like(drawn)
    return from_first_rank(drawn + noise)
