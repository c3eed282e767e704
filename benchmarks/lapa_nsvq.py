"""The control: noise substitution as in LAPA's released code, with its defects, behind our signature.

It follows https://github.com/LatentActionPretraining/LAPA (laq/laq_model/nsvq.py, and the schedule in
latent_action_quantization.py), re-told, not copied. What our own `nsvq` does differently, and why it collapses less:

- one codebook for all slots, drawn from N(0, 1) wherever the encoder is;
- the code vectors of a clip are read in the wrong order of axes, so that every slot that is decoded holds parts of all;
- a code counts as used at most once per batch, and the count is divided by the batch size;
- unused codes become copies of used ones, at steps that end with 5,000; if none counts as used, nothing happens;
- counts are no part of the checkpoint, and every process has its own.

Left out: LAPA's projections and convolutions around the quantizer, for which our encoder and decoder have their own.

Shapes: b batch, s code slots, k codebook entries, v code width.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from hlrp.laq.quantizers import Quantized, Quantizer
from hlrp.latents import LatentSpec

_USED_SHARE = 0.1
"""LAPA's `discarding_threshold`."""
_TINY = 1e-12


class LapaNSVQ(Quantizer):
    """LAPA's quantizer."""

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
        self.used[nearest] += 1  # once, however often a code occurs
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
        if not used.any():  # LAPA "shuffles" with noise of 1e-12
            return
        copies = self.codes[used]
        if len(copies) < len(unused):
            copies = copies.repeat(len(unused) // len(copies) + 1, 1)
            copies = copies[torch.randperm(len(copies))]
        self.codes.data[unused] = copies[: len(unused)] + _TINY * torch.randn(len(unused), copies.shape[1])


def _in_wrong_order(rows: Float[Tensor, "bs v"], batch_size: int) -> Float[Tensor, "b s v"]:
    """Rows (b s) v taken for b v s."""
    return rows.reshape(batch_size, rows.shape[1], -1).permute(0, 2, 1).contiguous()
