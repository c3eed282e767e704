"""The latent action quantizer: video in, codes out, learned without actions.

After LAPA (arXiv:2410.11758). Shapes: b clips, t frames, n = t-1 transitions, c = 3 channels for each camera, s code
slots, v code width, a action values of one transition.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from hlrp.laq.config import LAQConfig
from hlrp.laq.decoder import PredictedChange, TransitionDecoder
from hlrp.laq.encoder import TransitionEncoder
from hlrp.laq.quantizers import QUANTIZERS
from hlrp.latents import LatentActions, LatentSpec, fingerprint
from hlrp.training.evaluation_mode import inference


@dataclass(frozen=True)
class Reconstruction:
    """A clip seen through its codes."""

    change: PredictedChange
    """What the decoder says of frames 1 … t-1, each from the true frame before it."""
    frames: Float[Tensor, "b n c h w"] | None
    """The predicted frames; None where the decoder does not predict pixels."""
    codes: Int[Tensor, "b n s"]
    vectors: Float[Tensor, "b n s v"]
    """Encoder outputs before quantization."""
    quantized: Float[Tensor, "b n s v"]
    """Code vectors: what the decoder sees."""
    actions: Float[Tensor, "b n a"] | None
    """Standardized actions read from the codes; None without an action head."""
    quantizer_loss: Float[Tensor, ""]


class LatentActionQuantizer(nn.Module):
    """Encoder, quantizer and decoder of transitions."""

    architecture = "hlrp"
    """Its name in a checkpoint."""

    def __init__(self, config: LAQConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = TransitionEncoder(config)
        self.quantizer = QUANTIZERS[config.quantizer](config.spec)
        self.decoder = TransitionDecoder(config)
        width = config.spec.code_seq_len * config.spec.code_dim
        self.action_head = nn.Linear(width, config.action_dim) if config.action_dim else None

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
        quantized, codes, loss = self._quantize(vectors)
        change = self.decoder(frames[:, :-1], quantized)
        return Reconstruction(
            change=change,
            frames=None if change.pixels is None else frames[:, :-1] + change.pixels,
            codes=codes,
            vectors=vectors,
            quantized=quantized,
            actions=None if self.action_head is None else self.action_head(quantized.flatten(2)),
            quantizer_loss=loss,
        )

    def predict(
        self, frames: Float[Tensor, "b n c h w"], vectors: Float[Tensor, "b n s v"]
    ) -> Float[Tensor, "b n c h w"]:
        """The frame that follows each frame (float32 in [0, 1]) under code vectors of any origin.

        Raises:
            ValueError: If the decoder does not predict pixels.
        """
        change = self.decoder(frames, vectors).pixels
        if change is None:
            raise ValueError(f"this LAQ predicts {', '.join(self.config.targets)}, no pixels; train one with pixels")
        return frames + change

    def lookup(self, codes: Int[Tensor, "b n s"]) -> Float[Tensor, "b n s v"]:
        """Code vectors of `codes`."""
        vectors = self.quantizer.lookup(rearrange(codes, "b n s -> (b n) s"))
        return rearrange(vectors, "(b n) s v -> b n s v", n=codes.shape[1])

    @inference
    def encode(
        self,
        frames: UInt8[Tensor, "b t c h w"] | Float[Tensor, "b t c h w"],
        valid: Bool[Tensor, " b"] | None = None,
    ) -> LatentActions:
        """Latent actions of clips (uint8, or float32 in [0, 1]).

        They are those of evaluation mode and full precision, whatever the model's mode and autocast: a label is the
        same wherever it is made, and making it changes neither statistics nor codebooks.

        Raises:
            ValueError: If the number of frames or their size is not the model's, or a pixel is not finite.
        """
        pixels = self.to_pixels(frames)
        if valid is None:
            valid = torch.ones(len(pixels), dtype=torch.bool, device=pixels.device)
        with torch.autocast(pixels.device.type, enabled=False):
            vectors = self.encoder(pixels)
            _, codes, _ = self._quantize(vectors)
        return LatentActions(codes, vectors, valid)

    def to_pixels(self, frames: UInt8[Tensor, "b t c h w"] | Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t c h w"]:
        """Check clips and bring them to float32 in [0, 1]."""
        expected = (self.spec.num_frames, self.config.channels, *self.config.image_size)
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
        return fingerprint(self.state_dict(), self.description())

    def description(self) -> dict[str, Any]:
        """Plain values of its configuration, for JSON."""
        return description(self.config)

    def _quantize(
        self, vectors: Float[Tensor, "b n s v"]
    ) -> tuple[Float[Tensor, "b n s v"], Int[Tensor, "b n s"], Float[Tensor, ""]]:
        found = self.quantizer(rearrange(vectors, "b n s v -> (b n) s v"))
        n = vectors.shape[1]
        quantized = rearrange(found.vectors, "(b n) s v -> b n s v", n=n)
        return quantized, rearrange(found.ids, "(b n) s -> b n s", n=n), found.loss


def description(config: LAQConfig) -> dict[str, Any]:
    """Plain values of `config`, for JSON."""
    return {**asdict(config), "image_size": list(config.image_size), "targets": list(config.targets)}


def config_from_description(values: dict[str, Any]) -> LAQConfig:
    """Inverse of `description`."""
    known = {
        "spec": LatentSpec(**values["spec"]),
        "image_size": tuple(values["image_size"]),
        "targets": tuple(values["targets"]),
    }
    return LAQConfig(**{**values, **known})
