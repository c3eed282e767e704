"""The latent action quantizer: video in, codes out, learned without actions.

After LAPA (arXiv:2410.11758). Shapes: b clips, t frames, n = t-1 transitions, s code slots, v code width.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from hlrp.laq.config import LAQConfig
from hlrp.laq.decoder import TransitionDecoder
from hlrp.laq.encoder import TransitionEncoder
from hlrp.laq.quantizer import QUANTIZERS, Quantized
from hlrp.latents import LatentActions, LatentSpec, fingerprint


@dataclass(frozen=True)
class Reconstruction:
    """A clip seen through its codes."""

    frames: Float[Tensor, "b n c h w"]
    """Predicted frames 1 … t-1, each from the true frame before it."""
    codes: Int[Tensor, "b n s"]
    vectors: Float[Tensor, "b n s v"]
    """Encoder outputs before quantization."""
    quantizer_loss: Float[Tensor, ""]


class LatentActionQuantizer(nn.Module):
    """Encoder, quantizer and decoder of transitions."""

    def __init__(self, config: LAQConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = TransitionEncoder(config)
        self.quantizer = QUANTIZERS[config.quantizer](config.spec)
        self.decoder = TransitionDecoder(config)

    @property
    def spec(self) -> LatentSpec:
        """Geometry of the codes."""
        return self.config.spec

    def forward(
        self, frames: Float[Tensor, "b t c h w"], seen: Float[Tensor, "b t c h w"] | None = None
    ) -> Reconstruction:
        """Encode, quantize and predict; frames are float32 in [0, 1].

        Args:
            frames: What the decoder starts from, and predicts.
            seen: What the encoder sees instead: the same clips, altered in what is not motion.
        """
        vectors = self.encoder(frames if seen is None else seen)
        quantized = self._quantize(vectors)
        codes, n = quantized.ids, vectors.shape[1]
        predicted = self.decoder(frames[:, :-1], rearrange(quantized.vectors, "(b n) s v -> b n s v", n=n))
        return Reconstruction(predicted, rearrange(codes, "(b n) s -> b n s", n=n), vectors, quantized.loss)

    @torch.no_grad()
    def encode(
        self,
        frames: UInt8[Tensor, "b t c h w"] | Float[Tensor, "b t c h w"],
        valid: Bool[Tensor, " b"] | None = None,
    ) -> LatentActions:
        """Latent actions of clips (uint8, or float32 in [0, 1]); call in evaluation mode.

        Raises:
            ValueError: If the number of frames or their size is not the model's, or a pixel is not finite.
        """
        pixels = self.to_pixels(frames)
        if valid is None:
            valid = torch.ones(len(pixels), dtype=torch.bool, device=pixels.device)
        vectors = self.encoder(pixels)
        codes = rearrange(self._quantize(vectors).ids, "(b n) s -> b n s", n=vectors.shape[1])
        return LatentActions(codes, vectors, valid)

    def to_pixels(self, frames: UInt8[Tensor, "b t c h w"] | Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t c h w"]:
        """Check clips and bring them to float32 in [0, 1]."""
        expected = (self.spec.num_frames, 3, *self.config.image_size)
        if tuple(frames.shape[1:]) != expected:
            raise ValueError(f"clips must be (batch, {', '.join(map(str, expected))}), got {tuple(frames.shape)}")
        if not frames.is_floating_point():
            return frames.float() / 255
        if not bool(torch.isfinite(frames).all()):
            raise ValueError(
                "frames hold NaN or infinite pixels; expected float32 in [0, 1], check the camera or decoder"
            )
        return frames

    def codebook(self) -> Float[Tensor, "s k v"]:
        """Code vectors of every slot."""
        return self.quantizer.codebook(self.spec)

    def fingerprint(self) -> str:
        """Identity of this model: changes with any weight or setting."""
        return fingerprint(self.state_dict(), description(self.config))

    def _quantize(self, vectors: Float[Tensor, "b n s v"]) -> Quantized:
        return self.quantizer(rearrange(vectors, "b n s v -> (b n) s v"))


def description(config: LAQConfig) -> dict[str, Any]:
    """Plain values of `config`, for JSON."""
    return {**asdict(config), "image_size": list(config.image_size)}


def config_from_description(values: dict[str, Any]) -> LAQConfig:
    """Inverse of `description`."""
    return LAQConfig(**{**values, "spec": LatentSpec(**values["spec"]), "image_size": tuple(values["image_size"])})
