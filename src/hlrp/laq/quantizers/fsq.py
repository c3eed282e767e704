"""Finite scalar quantization (FSQ, arXiv:2309.15505).

Shapes: i rounded dimensions of a slot, j the same dimensions a second time.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ

from hlrp.laq.quantizers.base import Quantized, Quantizer
from hlrp.laq.quantizers.standardization import BatchStandardization
from hlrp.latents import LatentSpec
from hlrp.training.ranks import mean_over_ranks

_USAGE_WEIGHT = 0.2
"""Weight of `usage_loss`: small beside the reconstruction loss, which should decide what the codes mean."""


class FiniteScalarQuantizer(Quantizer):
    """Rounds a few bounded dimensions of each slot to a few levels each; there is no learned codebook to collapse.

    The dimensions are first standardized over the batch: otherwise an encoder may keep a dimension on one side of a
    rounding threshold, so that codes stay unused. `usage_loss` adds what else equal usage of the codes needs:
    dimensions that are symmetric around 0 and uncorrelated.
    """

    def __init__(self, spec: LatentSpec) -> None:
        super().__init__()
        levels = factor_levels(spec.codebook_size)
        self.project_in = nn.Parameter(torch.randn(spec.code_seq_len, spec.code_dim, len(levels)) * spec.code_dim**-0.5)
        self.standardize = BatchStandardization(spec.code_seq_len, len(levels))
        self.rounding = FSQ(levels, preserve_symmetry=True)
        self.project_out = nn.Parameter(
            torch.randn(spec.code_seq_len, len(levels), spec.code_dim) * len(levels) ** -0.5
        )

    def quantize(self, latents: Float[Tensor, "b s v"]) -> Quantized:
        bounded = self.standardize(torch.einsum("b s v, s v i -> b s i", latents, self.project_in))
        rounded, ids = self.rounding(bounded)
        loss = _USAGE_WEIGHT * usage_loss(bounded) if self.training else latents.new_zeros(())
        return Quantized(self._to_vectors(rounded), ids.long(), loss)

    def lookup(self, ids: Int[Tensor, "b s"]) -> Float[Tensor, "b s v"]:
        return self._to_vectors(self.rounding.indices_to_codes(ids))

    def _to_vectors(self, rounded: Float[Tensor, "b s i"]) -> Float[Tensor, "b s v"]:
        return torch.einsum("b s i, s i v -> b s v", rounded, self.project_out)


def usage_loss(bounded: Float[Tensor, "b s i"]) -> Float[Tensor, ""]:
    """Loss that is 0 if every dimension of a slot is balanced around 0 and uncorrelated with the slot's others."""
    sides = torch.tanh(2 * bounded)  # a smooth sign, in (-1, 1)
    balance = mean_over_ranks(sides.mean(0)).square().mean()
    together = mean_over_ranks(torch.einsum("b s i, b s j -> s i j", sides, sides) / len(sides))
    apart = together - torch.diag_embed(together.diagonal(dim1=1, dim2=2))
    return balance + apart.square().mean()


def factor_levels(codebook_size: int) -> list[int]:
    """Levels of each FSQ dimension: the prime factors of `codebook_size`, so that their product is `codebook_size`.

    Raises:
        ValueError: If a prime factor is above 16, since rounding one dimension to so many levels works badly.
    """
    levels, rest = [], codebook_size
    for factor in range(2, math.isqrt(codebook_size) + 1):
        while rest % factor == 0:
            levels.append(factor)
            rest //= factor
    if rest > 1:
        levels.append(rest)
    if max(levels) > 16:
        raise ValueError(
            f"fsq cannot spread codebook_size={codebook_size} over small levels; use a power of two, or vq"
        )
    return levels
