"""One pass of a quantizer over clips: all that the figures of its quality are computed from.

Shapes: b clips, t frames, n = t-1 transitions, c h w a frame, s code slots, v code width, p pixels of a thumbnail.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from hlrp.laq.model import LatentActionQuantizer
from hlrp.runtime.progress import progress

_THUMBNAIL = 16
"""Side of the frames that the pixel baseline reads: 256 values a channel keep a linear fit well posed."""


@dataclass(frozen=True)
class Latents:
    """Latent actions of clips, as numbers that leave the model."""

    codes: Int[Tensor, "b n s"] | None
    """None for a quantizer without codes."""
    quantized: Float[Tensor, "b n s v"]
    """What the decoder reads: code vectors, or the vectors themselves where there are no codes."""
    vectors: Float[Tensor, "b n s v"]
    """Encoder outputs before quantization."""


@dataclass(frozen=True)
class ClipFeatures:
    """What the probes read from a set of clips."""

    latents: Latents
    still: Latents
    """Of the same clips with frame t repeated."""
    pixels: Float[Tensor, "b p"]
    """Frame t, 16x16."""


def latents_of(model: LatentActionQuantizer, frames: Float[Tensor, "b t c h w"]) -> Latents:
    """Encode frames that `model.to_pixels` has checked; call in evaluation mode, without gradients."""
    found = model.encode(frames)
    if not model.quantizer.has_codes:
        return Latents(None, found.vectors, found.vectors)
    return Latents(found.codes, model.lookup(found.codes), found.vectors)


@torch.no_grad()
def clip_features(model: LatentActionQuantizer, batches: Iterable[UInt8[Tensor, "_ t c h w"]]) -> ClipFeatures:
    """Run `model`, in evaluation mode, over clips, batch by batch."""
    device = next(model.parameters()).device
    rows: list[tuple[Latents, Latents, Tensor]] = []
    for clips in progress(batches, "measuring latents"):
        frames = model.to_pixels(clips.to(device))
        thumbnail = F.adaptive_avg_pool2d(frames[:, 0], _THUMBNAIL).flatten(1)
        rows.append((latents_of(model, frames), latents_of(model, still_clip(frames)), thumbnail.cpu()))
    moving, still, pixels = zip(*rows, strict=True)
    return ClipFeatures(joined(moving), joined(still), torch.cat(pixels))


def still_clip(frames: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b t c h w"]:
    """Frame t repeated: a clip in which nothing moves."""
    return frames[:, :1].expand_as(frames)


def joined(parts: Iterable[Latents]) -> Latents:
    """Latents of all batches, on the host."""
    codes, quantized, vectors = zip(*((part.codes, part.quantized, part.vectors) for part in parts), strict=True)
    return Latents(
        None if codes[0] is None else torch.cat(codes).cpu(), torch.cat(quantized).cpu(), torch.cat(vectors).cpu()
    )
