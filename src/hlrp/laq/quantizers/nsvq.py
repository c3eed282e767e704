"""Noise substitution vector quantization (NSVQ, Vali & Bäckström, IEEE Access 2022), as in LAPA (arXiv:2410.11758)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hlrp.laq.quantizers.base import Quantized
from hlrp.laq.quantizers.learned import LearnedCodebooks
from hlrp.latents import LatentSpec
from hlrp.training.ranks import normal_rows


class NoiseSubstitutionQuantizer(LearnedCodebooks):
    """Replaces the quantization error in training by random noise of its length; evaluation uses the nearest code.

    The output is then differentiable in the encoder's vector and, through the length of the error, in the code. The
    quantizer needs neither a loss of its own nor a straight-through gradient.
    """

    anchors: Tensor
    """Vectors at which codes were last placed, (s, k, v); a code is its anchor plus its learned offset."""

    def __init__(self, spec: LatentSpec) -> None:
        super().__init__(spec)
        shape = (spec.code_seq_len, spec.codebook_size, spec.code_dim)
        # A code is anchor + offset. Placing a code anew changes its anchor, so that only the optimizer writes to the
        # parameter.
        self.register_buffer("anchors", torch.randn(shape))
        self.offsets = nn.Parameter(torch.zeros(shape))

    def nearest(self, latents: Float[Tensor, "b s v"]) -> Quantized:
        ids = nearest_ids(latents, self.anchors + self.offsets)
        codes = self.lookup(ids)
        if not self.training:
            return Quantized(codes, ids, latents.new_zeros(()))
        error = (latents - codes).norm(dim=-1, keepdim=True)
        direction = F.normalize(normal_rows(latents), dim=-1)
        return Quantized(latents + error * direction, ids, latents.new_zeros(()))

    def lookup(self, ids: Int[Tensor, "b s"]) -> Float[Tensor, "b s v"]:
        slots = torch.arange(ids.shape[1], device=ids.device)
        return self.anchors[slots, ids] + self.offsets[slots, ids]

    def place(self, slot: int, which: Bool[Tensor, " k"], vectors: Float[Tensor, "placed v"]) -> None:
        self.anchors[slot, which] = vectors - self.offsets[slot, which]

    def values_of(self, codes: Bool[Tensor, "s k"]) -> dict[str, Bool[Tensor, "..."]]:
        return {"anchors": codes[..., None], "offsets": codes[..., None]}


@torch.no_grad()
def nearest_ids(latents: Float[Tensor, "b s v"], codes: Float[Tensor, "s k v"]) -> Int[Tensor, "b s"]:
    """Index of the nearest code (Euclidean distance) to each vector, in the codebook of the vector's slot."""
    return torch.cdist(latents.transpose(0, 1), codes).argmin(-1).transpose(0, 1)
