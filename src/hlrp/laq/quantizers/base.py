"""What all quantizers share: one signature, and slots that never mix.

Shapes: b batch, s code slots, k codebook entries, v code width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hlrp.latents import LatentSpec


@dataclass(frozen=True)
class Quantized:
    """Code vectors of a batch, the ids that produced them, and what training them costs."""

    vectors: Float[Tensor, "b s v"]
    """Codebook vectors (in training some quantizers add noise); gradients pass through to the encoder."""
    ids: Int[Tensor, "b s"]
    """Codes in [0, k); `NO_LABEL` everywhere from a quantizer without codes."""
    loss: Float[Tensor, ""]


class Quantizer(nn.Module, ABC):
    """From one vector per slot to one code per slot."""

    has_codes: bool = True
    """False for a bottleneck without a codebook: its ids are all `NO_LABEL`."""

    def forward(self, latents: Float[Tensor, "b s v"]) -> Quantized:
        """Replace each vector by an entry of its slot's codebook; always in float32, whatever the encoder runs in."""
        with torch.autocast(latents.device.type, enabled=False):
            return self.quantize(latents.float())

    @abstractmethod
    def quantize(self, latents: Float[Tensor, "b s v"]) -> Quantized:
        """`forward` in full precision."""

    @abstractmethod
    def lookup(self, ids: Int[Tensor, "b s"]) -> Float[Tensor, "b s v"]:
        """Code vectors of `ids`: what `forward` returns for them in evaluation.

        Raises:
            ValueError: If the quantizer has no codes.
        """

    def codebook(self, spec: LatentSpec) -> Float[Tensor, "s k v"]:
        """All code vectors.

        Raises:
            ValueError: If the quantizer has no codes.
        """
        ids = torch.arange(spec.codebook_size)[:, None].expand(-1, spec.code_seq_len)
        return self.lookup(ids.to(next(self.buffers()).device)).transpose(0, 1).contiguous()
