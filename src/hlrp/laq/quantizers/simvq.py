"""SimVQ (arXiv:2411.02038): codes are a learned linear map of fixed random vectors, so that all codes move together."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from vector_quantize_pytorch import SimVQ

from hlrp.laq.quantizers.base import Quantized
from hlrp.laq.quantizers.learned import COMMITMENT, LearnedCodebooks
from hlrp.latents import LatentSpec


class LinearCodebookQuantizer(LearnedCodebooks):
    """Nearest neighbour among linearly mapped vectors, with one map and one set of fixed vectors per slot.

    The map keeps all codes in use once the codes span the latents, but this takes longer than a short run. Therefore
    the fixed vectors start where the map sends them to encoder outputs, and a dead code gets a new vector.
    """

    def __init__(self, spec: LatentSpec) -> None:
        super().__init__(spec)
        # A ModuleDict, since sharded training (`hlrp.training.sharding`) shards the elements of a ModuleList one by
        # one, and `place` needs the whole maps.
        self.slots = nn.ModuleDict({str(i): _slot(spec) for i in range(spec.code_seq_len)})

    @property
    def books(self) -> list[SimVQ]:
        """The codebook module of every slot."""
        return list(self.slots.values())  # pyright: ignore[reportReturnType]

    def nearest(self, latents: Float[Tensor, "b s v"]) -> Quantized:
        results = [slot(latents[:, i, None]) for i, slot in enumerate(self.books)]
        vectors, ids, losses = zip(*results, strict=True)
        if not self.training:  # the library applies the rotation trick in evaluation too, with rounding errors
            return Quantized(self.lookup(torch.cat(ids, 1)), torch.cat(ids, 1), latents.new_zeros(()))
        return Quantized(torch.cat(vectors, 1), torch.cat(ids, 1), torch.stack(losses).sum())

    def lookup(self, ids: Int[Tensor, "b s"]) -> Float[Tensor, "b s v"]:
        slots = [slot.indices_to_codes(ids[:, i, None]) for i, slot in enumerate(self.books)]
        return torch.cat(slots, dim=1)

    def place(self, slot: int, which: Bool[Tensor, " k"], vectors: Float[Tensor, "placed v"]) -> None:
        book = self.books[slot]
        # A code is W f: the fixed vector f that the map W sends to the wanted code is found by the pseudo-inverse of W.
        inverse = torch.linalg.pinv(book.code_transform.weight)  # pyright: ignore[reportOptionalMemberAccess]
        book.frozen_codebook[which] = vectors @ inverse.T  # pyright: ignore[reportIndexIssue]

    def values_of(self, codes: Bool[Tensor, "s k"]) -> dict[str, Bool[Tensor, "..."]]:
        return {f"slots.{slot}.frozen_codebook": which[:, None] for slot, which in enumerate(codes)}


def _slot(spec: LatentSpec) -> SimVQ:
    transform = nn.Linear(spec.code_dim, spec.code_dim, bias=False)
    nn.init.orthogonal_(transform.weight)
    return SimVQ(
        spec.code_dim,
        spec.codebook_size,
        codebook_transform=transform,
        input_to_quantize_commit_loss_weight=COMMITMENT,
    )
