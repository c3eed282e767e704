"""A bottleneck without codes: the latent of a beta-VAE (Higgins et al., ICLR 2017; Kingma & Welling, arXiv:1312.6114).

Shapes: u a second width of a code vector, equal to v.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hlrp.laq.quantizers.base import Quantized, Quantizer
from hlrp.latents import NO_LABEL, LatentSpec
from hlrp.training.ranks import normal_rows

_NO_CODES = "a continuous LAQ has no codes; use its vectors, or train one of fsq, nsvq, vq, simvq and rvq"


class ContinuousBottleneck(Quantizer):
    """Adds Gaussian noise of a learned variance to each vector in training; returns the vector itself in evaluation.

    Args:
        spec: Number and width of the slots; the codebook size is not used.
        beta: Weight of the KL divergence from a standard normal, in nats, averaged over slots and dimensions.
    """

    has_codes = False

    def __init__(self, spec: LatentSpec, beta: float = 1e-3) -> None:
        super().__init__()
        self.beta = beta
        self.weight = nn.Parameter(torch.zeros(spec.code_seq_len, spec.code_dim, spec.code_dim))
        self.bias = nn.Parameter(torch.full((spec.code_seq_len, spec.code_dim), -2.0))

    def quantize(self, latents: Float[Tensor, "b s v"]) -> Quantized:
        ids = torch.full(latents.shape[:2], NO_LABEL, dtype=torch.int64, device=latents.device)
        if not self.training:
            return Quantized(latents, ids, latents.new_zeros(()))
        log_variance = torch.einsum("b s v, s v u -> b s u", latents, self.weight) + self.bias
        log_variance = log_variance.clamp(-10, 10)  # keeps exp() finite
        vectors = latents + (0.5 * log_variance).exp() * normal_rows(latents)
        divergence = 0.5 * (latents.square() + log_variance.exp() - 1 - log_variance).mean()
        return Quantized(vectors, ids, self.beta * divergence)

    def lookup(self, ids: Int[Tensor, "b s"]) -> Float[Tensor, "b s v"]:
        raise ValueError(_NO_CODES)

    def codebook(self, spec: LatentSpec) -> Float[Tensor, "s k v"]:
        raise ValueError(_NO_CODES)
