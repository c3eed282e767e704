"""Vector quantization with codes that are moving averages of the latents (VQ-VAE, arXiv:1711.00937, appendix A.1)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

from hlrp.laq.quantizers.base import Quantized
from hlrp.laq.quantizers.learned import COMMITMENT, LearnedCodebooks
from hlrp.latents import LatentSpec
from hlrp.training.ranks import sum_over_ranks_


class VectorQuantizer(LearnedCodebooks):
    """Nearest neighbour in one codebook per slot; gradients pass by the rotation trick (arXiv:2410.06424)."""

    def __init__(self, spec: LatentSpec) -> None:
        super().__init__(spec)
        self.slots = nn.ModuleList(moving_codebook(spec) for _ in range(spec.code_seq_len))

    @property
    def books(self) -> list[VectorQuantize]:
        """The codebook module of every slot."""
        return list(self.slots)  # pyright: ignore[reportReturnType]

    def nearest(self, latents: Float[Tensor, "b s v"]) -> Quantized:
        results = [slot(latents[:, i]) for i, slot in enumerate(self.books)]
        vectors, ids, losses = zip(*results, strict=True)
        return Quantized(torch.stack(vectors, 1), torch.stack(ids, 1), torch.stack(losses).sum())

    def lookup(self, ids: Int[Tensor, "b s"]) -> Float[Tensor, "b s v"]:
        return torch.stack([slot.codebook[ids[:, i]] for i, slot in enumerate(self.books)], dim=1)

    def place(self, slot: int, which: Bool[Tensor, " k"], vectors: Float[Tensor, "placed v"]) -> None:
        book = self.books[slot]._codebook
        # The library computes codes as embed_avg / cluster_size: all three must be set, or the next update moves them.
        for moving_average, value in ((book.embed, vectors), (book.embed_avg, vectors), (book.cluster_size, 1.0)):
            moving_average[0, which] = value  # pyright: ignore[reportIndexIssue]

    def values_of(self, codes: Bool[Tensor, "s k"]) -> dict[str, Bool[Tensor, "..."]]:
        masks: dict[str, Bool[Tensor, "..."]] = {}
        for slot, which in enumerate(codes):
            book = f"slots.{slot}._codebook"
            masks |= {f"{book}.{name}": which[None, :, None] for name in ("embed", "embed_avg")}
            masks[f"{book}.cluster_size"] = which[None]
        return masks


def moving_codebook(spec: LatentSpec) -> VectorQuantize:
    """Codebook of one slot, without the library's own replacement of dead codes, which `LearnedCodebooks` does."""
    slot = VectorQuantize(
        spec.code_dim,
        spec.codebook_size,
        decay=0.95,
        rotation_trick=True,
        commitment_weight=COMMITMENT,
        sync_codebook=False,
    )
    # The library chooses its all-reduce when it is constructed, which is before Lightning starts other processes.
    slot._codebook.all_reduce_fn = sum_over_ranks_
    return slot
