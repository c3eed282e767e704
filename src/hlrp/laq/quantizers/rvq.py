"""Residual vector quantization (SoundStream, arXiv:2107.03312, algorithm 1).

The slots s are the levels of the quantization.

Shapes: rows a number of vectors.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hlrp.laq.quantizers.base import Quantized
from hlrp.laq.quantizers.vq import VectorQuantizer


class ResidualVectorQuantizer(VectorQuantizer):
    """Code slots are the levels of one residual quantization of the mean over the (standardized) encoder slots.

    Level 0 quantizes the mean, each further level the residual of the levels before it. The sum of a transition's code
    vectors approximates the mean, and the first codes alone are a coarse latent action. The decoder still gets one
    vector per level. Each code depends on all encoder slots, and on the codebooks up to its own level.
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

    def slot_inputs(self, latents: Float[Tensor, "rows s v"], slot: int) -> Float[Tensor, "rows v"]:
        rest = latents.mean(1)
        for level in self.books[:slot]:
            rest = rest - level.codebook[torch.cdist(rest, level.codebook).argmin(-1)]
        return rest
