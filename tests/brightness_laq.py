"""A quantizer that knows the truth, for clips that only become brighter or darker: its figures are known beforehand.

Shapes: b clips, t frames, n transitions, m = 1 camera, c h w a frame, s = 1 code slot.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import LatentActions, LatentSpec

STEP = 25
"""Grey levels between two codes; code 2 is no change."""


def brightness_clips(count: int, t: int) -> tuple[UInt8[Tensor, "b t m c h w"], Int[Tensor, "b n"]]:
    """Clips of noise whose every pixel changes by 25 levels times (code - 2), and these codes."""
    codes = torch.randint(5, (count, t - 1))
    change = torch.cat([torch.zeros(count, 1, dtype=torch.int64), (codes - 2).cumsum(1) * STEP], dim=1)
    first = torch.randint(101, 155, (count, 1, 1, 3, 32, 32))
    return (first + rearrange(change, "b t -> b t 1 1 1 1")).to(torch.uint8), codes


class BrightnessLAQ(LatentActionQuantizer):
    """Its code is the change of the mean brightness; it decodes by adding that change."""

    def __init__(self) -> None:
        super().__init__(replace(debug(), spec=LatentSpec(codebook_size=5, code_seq_len=1, code_dim=1)))

    def code_of(self, change: Float[Tensor, "b n"]) -> Int[Tensor, "b n"]:
        """Name of a change in grey levels."""
        return (change / STEP).round().long().clamp(-2, 2) + 2

    def encode(
        self,
        frames: Float[Tensor, "b t m c h w"] | UInt8[Tensor, "b t m c h w"],
        valid: Bool[Tensor, " b"] | None = None,
    ) -> LatentActions:
        change = 255 * (frames[:, 1:] - frames[:, :-1]).mean((2, 3, 4, 5))
        codes = self.code_of(change)[..., None]
        return LatentActions(codes, self.lookup(codes), torch.ones(len(frames), dtype=torch.bool))

    def lookup(self, codes: Int[Tensor, "b n s"]) -> Float[Tensor, "b n s v"]:
        return (codes[..., None] - 2) * (STEP / 255)

    def predict(
        self, frames: Float[Tensor, "b n m c h w"], vectors: Float[Tensor, "b n s v"]
    ) -> Float[Tensor, "b n m c h w"]:
        return frames + rearrange(vectors, "b n 1 1 -> b n 1 1 1 1")


class BlindLAQ(BrightnessLAQ):
    """Predicts that every frame becomes brighter by one step, whatever the codes say."""

    def predict(
        self, frames: Float[Tensor, "b n m c h w"], vectors: Float[Tensor, "b n s v"]
    ) -> Float[Tensor, "b n m c h w"]:
        return frames + STEP / 255
