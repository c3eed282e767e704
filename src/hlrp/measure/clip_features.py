"""Latents of clips and of still clips, and small frames: what the quality metrics of a quantizer are computed from.

Shapes: b clips, t frames, n = t-1 transitions, c h w a frame, s code slots, v code width, p pixels of a thumbnail.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from hlrp.laq.model import LatentActionQuantizer
from hlrp.runtime.progress import progress

_THUMBNAIL = 16
"""Side, in pixels, of the frames for the pixel baseline: 256 values per channel, few enough for a stable linear fit."""


@dataclass(frozen=True)
class Latents:
    """Latent actions of clips: codes, code vectors and encoder outputs."""

    codes: Int[Tensor, "b n s"] | None
    """Code ids in [0, k); None for a quantizer without codes."""
    quantized: Float[Tensor, "b n s v"]
    """Input of the decoder: code vectors, or `vectors` for a quantizer without codes."""
    vectors: Float[Tensor, "b n s v"]
    """Encoder outputs before quantization."""


@dataclass(frozen=True)
class ClipFeatures:
    """Inputs of the linear probes for a set of clips."""

    latents: Latents
    """Latents of the clips."""
    still: Latents
    """Latents of still clips: the first frame of each clip, repeated."""
    pixels: Float[Tensor, "b p"]
    """First frame of each clip, averaged to 16x16 pixels, values in [0, 1]."""


def latents_of(model: LatentActionQuantizer, frames: Float[Tensor, "b t m c h w"]) -> Latents:
    """Encode clips, float32 in [0, 1]; call this in evaluation mode and without gradients."""
    found = model.encode(frames)
    if not model.quantizer.has_codes:
        return Latents(None, found.vectors, found.vectors)
    return Latents(found.codes, model.lookup(found.codes), found.vectors)


@torch.no_grad()
def clip_features(model: LatentActionQuantizer, batches: Iterable[UInt8[Tensor, "_ t m c h w"]]) -> ClipFeatures:
    """Encode all `batches` of clips and their still versions with `model`, which must be in evaluation mode."""
    device = next(model.parameters()).device
    rows: list[tuple[Latents, Latents, Tensor]] = []
    for clips in progress(batches, "measuring latents"):
        frames = model.to_pixels(clips.to(device))
        first = rearrange(frames[:, 0], "b m c h w -> b (m c) h w")
        thumbnail = F.adaptive_avg_pool2d(first, _THUMBNAIL).flatten(1)
        rows.append((latents_of(model, frames), latents_of(model, still_clip(frames)), thumbnail.cpu()))
    moving, still, pixels = zip(*rows, strict=True)
    return ClipFeatures(joined(moving), joined(still), torch.cat(pixels))


def still_clip(frames: Float[Tensor, "b t m c h w"]) -> Float[Tensor, "b t m c h w"]:
    """The first frame of each clip, repeated: a clip in which nothing moves."""
    return frames[:, :1].expand_as(frames)


def joined(parts: Iterable[Latents]) -> Latents:
    """Concatenate the latents of several batches, on the CPU."""
    codes, quantized, vectors = zip(*((part.codes, part.quantized, part.vectors) for part in parts), strict=True)
    return Latents(
        None if codes[0] is None else torch.cat(codes).cpu(), torch.cat(quantized).cpu(), torch.cat(vectors).cpu()
    )
