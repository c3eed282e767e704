"""From vectors to a few discrete codes per slot. Every slot has a codebook of its own, so slots cannot mix.

Shapes: b batch, s code slots, k codebook entries, v code width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ, VectorQuantize

from hlrp.latents import LatentSpec


@dataclass(frozen=True)
class Quantized:
    """Code vectors of a batch, the ids that produced them, and what training them costs."""

    vectors: Float[Tensor, "b s v"]
    """Codebook vectors; gradients pass straight through to the encoder."""
    ids: Int[Tensor, "b s"]
    loss: Float[Tensor, ""]


class Quantizer(nn.Module, ABC):
    """One signature for all quantizers."""

    @abstractmethod
    def forward(self, latents: Float[Tensor, "b s v"]) -> Quantized:
        """Replace each vector by the nearest entry of its slot's codebook."""

    @abstractmethod
    def lookup(self, ids: Int[Tensor, "b s"]) -> Float[Tensor, "b s v"]:
        """Code vectors of `ids`: what `forward` returns for them."""

    def codebook(self, spec: LatentSpec) -> Float[Tensor, "s k v"]:
        """All code vectors."""
        ids = torch.arange(spec.codebook_size)[:, None].expand(-1, spec.code_seq_len)
        return self.lookup(ids.to(next(self.buffers()).device)).transpose(0, 1).contiguous()


class FiniteScalarQuantizer(Quantizer):
    """Rounds a few bounded dimensions of each slot (FSQ, arXiv:2309.15505): no codebook to learn, none to collapse.

    The dimensions are standardized over the batch first. Without it FSQ still leaves codes unused, because an encoder
    may keep a dimension on one side of its threshold; a zero mean puts the threshold where the data is. The loss asks
    for the rest of what equal usage needs: dimensions symmetric around the threshold, and independent of each other.
    """

    def __init__(self, spec: LatentSpec) -> None:
        super().__init__()
        levels = factor_levels(spec.codebook_size)
        self.project_in = nn.Parameter(torch.randn(spec.code_seq_len, spec.code_dim, len(levels)) * spec.code_dim**-0.5)
        self.standardize = nn.BatchNorm1d(spec.code_seq_len * len(levels), affine=False, momentum=0.02)
        self.rounding = FSQ(levels, preserve_symmetry=True)
        self.project_out = nn.Parameter(
            torch.randn(spec.code_seq_len, len(levels), spec.code_dim) * len(levels) ** -0.5
        )

    def forward(self, latents: Float[Tensor, "b s v"]) -> Quantized:
        bounded = torch.einsum("b s v, s v l -> b s l", latents, self.project_in)
        bounded = self.standardize(bounded.flatten(1)).reshape(bounded.shape)
        rounded, ids = self.rounding(bounded)
        return Quantized(self._to_vectors(rounded), ids.long(), _USAGE_WEIGHT * usage_loss(bounded))

    def lookup(self, ids: Int[Tensor, "b s"]) -> Float[Tensor, "b s v"]:
        return self._to_vectors(self.rounding.indices_to_codes(ids))

    def _to_vectors(self, rounded: Float[Tensor, "b s l"]) -> Float[Tensor, "b s v"]:
        return torch.einsum("b s l, s l v -> b s v", rounded, self.project_out)


class VectorQuantizer(Quantizer):
    """Nearest neighbour in codebooks that follow the encoder by moving averages (VQ-VAE, arXiv:1711.00937)."""

    def __init__(self, spec: LatentSpec) -> None:
        super().__init__()
        self.slots = nn.ModuleList(
            VectorQuantize(
                spec.code_dim, spec.codebook_size, decay=0.95, kmeans_init=True, threshold_ema_dead_code=2,
                rotation_trick=True, commitment_weight=0.25,
            )
            for _ in range(spec.code_seq_len)
        )  # fmt: skip

    def forward(self, latents: Float[Tensor, "b s v"]) -> Quantized:
        # The library would start its codebook from these latents even in evaluation mode.
        if not self.training and not all(slot._codebook.initted for slot in self.slots):  # pyright: ignore[reportAttributeAccessIssue]
            raise ValueError("a vq codebook starts from its first training batch; train it before it labels")
        results = [slot(latents[:, i : i + 1]) for i, slot in enumerate(self.slots)]
        vectors = torch.cat([vectors for vectors, _, _ in results], dim=1)
        ids = torch.cat([ids for _, ids, _ in results], dim=1)
        return Quantized(vectors, ids, torch.stack([loss.sum() for _, _, loss in results]).sum())

    def lookup(self, ids: Int[Tensor, "b s"]) -> Float[Tensor, "b s v"]:
        slots = [slot.get_output_from_indices(ids[:, i : i + 1]) for i, slot in enumerate(self.slots)]  # pyright: ignore[reportCallIssue]
        return torch.cat(slots, dim=1)


_USAGE_WEIGHT = 0.2
"""Small beside the reconstruction: it breaks ties between codes, it does not make them."""


def usage_loss(bounded: Float[Tensor, "b s l"]) -> Float[Tensor, ""]:
    """0 where every dimension of a slot is balanced around 0 and uncorrelated with the slot's others."""
    sides = torch.tanh(2 * bounded)
    balance = sides.mean(0).square().mean()
    together = torch.einsum("b s l, b s m -> s l m", sides, sides) / len(sides)
    apart = together - torch.diag_embed(together.diagonal(dim1=1, dim2=2))
    return balance + apart.square().mean()


QUANTIZERS: dict[str, type[Quantizer]] = {"fsq": FiniteScalarQuantizer, "vq": VectorQuantizer}


def factor_levels(codebook_size: int) -> list[int]:
    """Levels per FSQ dimension whose product is `codebook_size`: its prime factors, the fewest levels each.

    Raises:
        ValueError: If a factor is so large that one dimension would have to carry it all.
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
