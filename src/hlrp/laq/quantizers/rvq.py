"""Residual vector quantization (SoundStream, arXiv:2107.03312, algorithm 1).

Shapes: b batch, s code slots (levels), k codebook entries, v code width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hlrp.laq.quantizers.base import Quantized
from hlrp.laq.quantizers.vq import VectorQuantizer


class ResidualVectorQuantizer(VectorQuantizer):
    """Slots as the levels of one chain, coarse to fine, over the mean of the (standardized) encoder slots.

    Level 0 quantizes the mean, each level after it what the levels before left over: the sum of a transition's code
    vectors approximates its mean latent ever better, and the first codes alone are a coarse latent action. The decoder
    still sees one vector per level. Every code depends on all encoder slots, but on no codebook after its own.
    """

    def nearest(self, latents: Float[Tensor, "b s v"]) -> Quantized:
        rest = latents.mean(1)
        vectors, ids, losses = [], [], []
        for level in self.books:
            vector, index, loss = level(rest)
            rest = rest - vector.detach()
            vectors.append(vector)
            ids.append(index)
            losses.append(loss)
        return Quantized(torch.stack(vectors, 1), torch.stack(ids, 1), torch.stack(losses).sum())

    def slot_inputs(self, latents: Float[Tensor, "m s v"], slot: int) -> Float[Tensor, "m v"]:
        rest = latents.mean(1)
        for level in self.books[:slot]:
            rest = rest - level.codebook[torch.cdist(rest, level.codebook).argmin(-1)]
        return rest
