"""The latent action quantizer (LAQ): it learns, from video without actions, to encode motion between frames as codes.

The design follows LAPA (arXiv:2410.11758).

Shapes: g action values of one transition, h*a.
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
from hlrp.laq.lapa.config import LapaConfig
from hlrp.laq.quantizers import quantizer_class
from hlrp.latents import LatentActions, LatentSpec, fingerprint
from hlrp.training.evaluation_mode import inference

Clips = UInt8[Tensor, "b t *m c h w"] | Float[Tensor, "b t *m c h w"]
"""Clips as a user passes them: (b, t, m, c, h, w), or (b, t, c, h, w) for a LAQ of one camera; RGB, uint8 in [0, 255]
or float32 in [0, 1]."""


@dataclass(frozen=True)
class Reconstruction:
    """What one forward pass gives: the codes of a batch of clips, and what the decoder predicts from these codes."""

    change: PredictedChange
    """Predicted change from each of the first t-1 frames to the next one; the decoder starts from the true frame."""
    frames: Float[Tensor, "b n m c h w"] | None
    """Predicted frames 1 … t-1, in about [0, 1]; None if the decoder does not predict pixels."""
    codes: Int[Tensor, "b n s"]
    """Code ids in [0, k); `NO_LABEL` everywhere from a quantizer without codes."""
    vectors: Float[Tensor, "b n s v"]
    """Encoder outputs before quantization."""
    quantized: Float[Tensor, "b n s v"]
    """Code vectors, the input of the decoder."""
    actions: Float[Tensor, "b n g"] | None
    """Standardized actions that the action head predicts from the codes; None without an action head."""
    quantizer_loss: Float[Tensor, ""]
    """Loss term of the quantizer, weighted; 0 in evaluation."""


class LatentActionQuantizer(nn.Module):
    """Encoder, quantizer and decoder: the decoder predicts the next frame from a frame and the codes of the encoder."""

    architecture = "hlrp"
    """Name of this architecture in `laq.json` of a checkpoint."""

    def __init__(self, config: LAQConfig | LapaConfig) -> None:
        super().__init__()
        self.config = config
        self._build()
        width = config.spec.code_seq_len * config.spec.code_dim
        self.action_head = nn.Linear(width, config.action_dim) if config.action_dim else None

    def _build(self) -> None:
        """Create encoder, quantizer and decoder; an architecture with other parts overrides this."""
        assert isinstance(self.config, LAQConfig)
        self.encoder = TransitionEncoder(self.config)
        self.quantizer = quantizer_class(self.config.quantizer)(self.config.spec)
        self.decoder = TransitionDecoder(self.config)

    @staticmethod
    def large_parts(config: Any) -> nn.Module:
        """Encoder, decoder and action head for `config`, to learn their size before memory is taken for a quantizer.

        The quantizer between them is left out: its size is bounded by `LatentSpec`, and FSQ cannot be built on the
        device "meta".
        """
        width = config.spec.code_seq_len * config.spec.code_dim
        heads = [nn.Linear(width, config.action_dim)] if config.action_dim else []
        return nn.ModuleList([TransitionEncoder(config), TransitionDecoder(config), *heads])

    @property
    def spec(self) -> LatentSpec:
        """Geometry of the codes."""
        return self.config.spec

    def forward(
        self, frames: Float[Tensor, "b t m c h w"], encoder_frames: Float[Tensor, "b t m c h w"] | None = None
    ) -> Reconstruction:
        """Encode, quantize and predict; frames are float32 in [0, 1].

        Args:
            frames: Clips. The decoder starts from all frames but the last, and predicts all but the first.
            encoder_frames: Input of the encoder: the same clips, altered in everything but motion. Default: `frames`.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.quantizer.is_final):
            vectors = self.encoder(frames if encoder_frames is None else encoder_frames)
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
        self, frames: Float[Tensor, "b n m c h w"], vectors: Float[Tensor, "b n s v"]
    ) -> Float[Tensor, "b n m c h w"]:
        """Predict the frame after each of `frames` (float32 in [0, 1]) from code vectors, also those of other clips.

        Raises:
            ValueError: If the decoder does not predict pixels.
        """
        change = self.decoder(frames, vectors).pixels
        if change is None:
            raise ValueError(f"this LAQ predicts {', '.join(self.config.targets)}, no pixels; train one with pixels")
        return frames + change

    def lookup(self, codes: Int[Tensor, "b n s"]) -> Float[Tensor, "b n s v"]:
        """Code vectors of the code ids `codes`."""
        vectors = self.quantizer.lookup(rearrange(codes, "b n s -> (b n) s"))
        return rearrange(vectors, "(b n) s v -> b n s v", n=codes.shape[1])

    @inference
    def encode(self, frames: Clips, valid: Bool[Tensor, " b"] | None = None) -> LatentActions:
        """Latent actions of clips.

        The model runs in evaluation mode and in float32, whatever its mode and autocast: a clip gets the same label in
        every run, and labelling changes neither statistics nor codebooks.

        Args:
            frames: Clips (b, t, m, c, h, w), RGB, uint8 in [0, 255] or float32 in [0, 1]. Clips for a LAQ of one camera
                may also be (b, t, c, h, w).
            valid: Whether each clip lies within one episode, which is passed on; default: all true.

        Raises:
            ValueError: If the number of frames, of cameras or of pixels is not the model's, or a pixel is not finite.
        """
        pixels = self.to_pixels(frames)
        if valid is None:
            valid = torch.ones(len(pixels), dtype=torch.bool, device=pixels.device)
        with torch.autocast(pixels.device.type, enabled=False):
            vectors = self.encoder(pixels)
            _, codes, _ = self._quantize(vectors)
        return LatentActions(codes if self.quantizer.has_codes else None, vectors, valid)

    def to_pixels(self, frames: Clips) -> Float[Tensor, "b t m c h w"]:
        """Check clips, bring them to float32 in [0, 1], and add the camera axis if `frames` lacks it.

        Raises:
            ValueError: If the shape is not the model's, or a pixel is not finite.
        """
        t, m, size = self.spec.num_frames, self.config.num_cameras, self.config.image_size
        came = tuple(frames.shape)
        if m == 1 and frames.ndim == 5:
            frames = rearrange(frames, "b t c h w -> b t 1 c h w")
        if tuple(frames.shape[1:]) != (t, m, 3, *size):
            expected = f"(batch, {', '.join(map(str, (t, m, 3, *size)))})"
            raise ValueError(f"clips must be {expected}: batch, frames, cameras, RGB, height, width; got {came}")
        if not frames.is_floating_point():
            return frames.float() / 255
        if not bool(torch.isfinite(frames).all()):
            raise ValueError(
                "frames hold NaN or infinite pixels; expected float32 in [0, 1], check the camera or decoder"
            )
        return frames

    def codebook(self) -> Float[Tensor, "s k v"]:
        """Code vectors of every slot, shape (s, k, v)."""
        return self.quantizer.codebook(self.spec)

    def fingerprint(self) -> str:
        """Identity of this model as 16 hexadecimal digits, which change with any weight or setting."""
        return fingerprint(self.state_dict(), self.description())

    def description(self) -> dict[str, Any]:
        """The model's configuration as plain values, for JSON."""
        assert isinstance(self.config, LAQConfig)
        return description(self.config)

    def _quantize(
        self, vectors: Float[Tensor, "b n s v"]
    ) -> tuple[Float[Tensor, "b n s v"], Int[Tensor, "b n s"], Float[Tensor, ""]]:
        found = self.quantizer(rearrange(vectors, "b n s v -> (b n) s v"))
        n = vectors.shape[1]
        quantized = rearrange(found.vectors, "(b n) s v -> b n s v", n=n)
        return quantized, rearrange(found.ids, "(b n) s -> b n s", n=n), found.loss


def description(config: LAQConfig) -> dict[str, Any]:
    """`config` as plain values, for JSON."""
    return {**asdict(config), "image_size": list(config.image_size), "targets": list(config.targets)}
