"""Interface of all quantizers: from vectors of code slots to code vectors and code ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hlrp.latents import LatentSpec


@dataclass(frozen=True)
class Quantized:
    """Code vectors and code ids of a batch, with the quantizer's own loss."""

    vectors: Float[Tensor, "b s v"]
    """Code vectors (in training, some quantizers add noise), through which gradients reach the encoder."""
    ids: Int[Tensor, "b s"]
    """Codes in [0, k); `NO_LABEL` everywhere from a quantizer without codes."""
    loss: Float[Tensor, ""]
    """Loss term of the quantizer, weighted; 0 in evaluation."""


class Quantizer(nn.Module, ABC):
    """From one vector per slot to one code per slot.

    In evaluation mode, `forward` changes no state, gives a latent the same code in every batch and every run, and
    returns the vectors of `lookup` and a loss of 0.
    """

    has_codes: bool = True
    """False for a quantizer without codebook, whose ids are all `NO_LABEL`."""

    @property
    def is_final(self) -> bool:
        """Whether training must not change the vectors that this quantizer takes any more."""
        return False

    def forward(self, latents: Float[Tensor, "b s v"]) -> Quantized:
        """Replace each vector by an entry of its slot's codebook; runs in float32 also under autocast."""
        with torch.autocast(latents.device.type, enabled=False):
            return self.quantize(latents.float())

    @abstractmethod
    def quantize(self, latents: Float[Tensor, "b s v"]) -> Quantized:
        """Implementation of `forward`; `latents` are float32, and autocast is off."""

    @abstractmethod
    def lookup(self, ids: Int[Tensor, "b s"]) -> Float[Tensor, "b s v"]:
        """Code vectors of `ids`, as `forward` returns them in evaluation mode.

        Raises:
            ValueError: If the quantizer has no codes.
        """

    def codebook(self, spec: LatentSpec) -> Float[Tensor, "s k v"]:
        """Code vectors of every slot, shape (s, k, v).

        Raises:
            ValueError: If the quantizer has no codes.
        """
        ids = torch.arange(spec.codebook_size)[:, None].expand(-1, spec.code_seq_len)
        # A quantizer without parameters and buffers computes its vectors from the ids alone, on their device.
        weight = next(chain(self.parameters(), self.buffers()), ids)
        return self.lookup(ids.to(weight.device)).transpose(0, 1).contiguous()
