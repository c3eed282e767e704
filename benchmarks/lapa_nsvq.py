"""LAPA's noise-substitution quantizer, with the defects of the released code, as a control for the collapse benchmark.

The code is written anew after https://github.com/LatentActionPretraining/LAPA (laq/laq_model/nsvq.py, and the schedule
in latent_action_quantization.py). LAPA's quantizer has these properties, which our own `nsvq` avoids and which make it
collapse more often:

- All slots share one codebook, which is initialized from N(0, 1), independently of the encoder's outputs.
- The code vectors of a clip are reshaped with the wrong order of axes, so that each decoded slot mixes all slots.
- A code counts as used at most once per batch, and the count is divided by the batch size.
- Unused codes become copies of used ones, only up to step 5,000; if no code counts as used, nothing happens.
- The counts are not saved in checkpoints, and every process counts on its own.

LAPA's projections and convolutions around the quantizer are left out; our encoder and decoder have their own.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from hlrp.laq.quantizers import Quantized, Quantizer
from hlrp.latents import LatentSpec

_USED_SHARE = 0.1
"""Use count over batch size from which a code counts as used; LAPA's `discarding_threshold`."""
_TINY = 1e-12


class LapaNSVQ(Quantizer):
    """Noise-substitution quantizer with the defects of LAPA's released code; see the module's docstring."""

    used: Tensor

    def __init__(self, spec: LatentSpec) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(spec.codebook_size, spec.code_dim))
        self.register_buffer("used", torch.zeros(spec.codebook_size), persistent=False)
        self.step = 0

    def quantize(self, latents: Float[Tensor, "b s v"]) -> Quantized:
        rows = rearrange(latents, "b s v -> (b s) v")
        nearest = torch.cdist(rows.detach(), self.codes.detach()).argmin(-1)
        ids = rearrange(nearest, "(b s) -> b s", b=len(latents))
        loss = latents.new_zeros(())
        if not self.training:
            return Quantized(self.lookup(ids), ids, loss)
        noise = torch.randn_like(rows)
        error = (rows - self.codes[nearest]).norm(dim=1, keepdim=True)
        vectors = _in_wrong_order(rows + (error / noise.norm(dim=1, keepdim=True) + _TINY) * noise, len(latents))
        self.used[nearest] += 1  # indexing adds 1 only once, even if a code occurs several times: a defect of LAPA's
        self._replace_on_schedule(len(latents))
        return Quantized(vectors, ids, loss)

    def lookup(self, ids: Int[Tensor, "b s"]) -> Float[Tensor, "b s v"]:
        return _in_wrong_order(self.codes[ids.flatten()], len(ids))

    @torch.no_grad()
    def _replace_on_schedule(self, batch_size: int) -> None:
        step, self.step = self.step, self.step + 1
        period = 10 if step < 100 else 100 if step < 1000 else 500
        if step == 0 or step >= 5000 or step % period:
            return
        used = self.used / batch_size >= _USED_SHARE
        unused = (~used).nonzero()[:, 0]
        self.used.zero_()
        if not used.any():  # LAPA then only adds noise of 1e-12, which changes nothing
            return
        copies = self.codes[used]
        if len(copies) < len(unused):
            copies = copies.repeat(len(unused) // len(copies) + 1, 1)
            copies = copies[torch.randperm(len(copies))]
        self.codes.data[unused] = copies[: len(unused)] + _TINY * torch.randn(len(unused), copies.shape[1])


def _in_wrong_order(rows: Float[Tensor, "bs v"], batch_size: int) -> Float[Tensor, "b s v"]:
    """Reshape rows "(b s) v" as if they were "b v s", the defect of LAPA's code that mixes the slots."""
    return rows.reshape(batch_size, rows.shape[1], -1).permute(0, 2, 1).contiguous()
