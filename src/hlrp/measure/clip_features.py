"""Latent actions of clips and of still clips, and small frames: the inputs of the quality metrics of a quantizer.

Shapes: p pixels of a thumbnail.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import LatentActions
from hlrp.runtime.progress import progress

_THUMBNAIL = 16
"""Side, in pixels, of the frames for the pixel baseline: 256 values per channel, few enough for a stable linear fit."""


@dataclass(frozen=True)
class ClipFeatures:
    """Inputs of the linear probes for a set of clips."""

    latents: LatentActions
    """Latent actions of the clips."""
    quantized: Float[Tensor, "b n s v"]
    """`decoder_input` of `latents`."""
    still: LatentActions
    """Latent actions of still clips: the first frame of each clip, repeated."""
    pixels: Float[Tensor, "b p"]
    """First frame of each clip, averaged to 16x16 pixels, values in [0, 1]."""


@torch.no_grad()
def clip_features(model: LatentActionQuantizer, batches: Iterable[UInt8[Tensor, "_ t m c h w"]]) -> ClipFeatures:
    """Encode all `batches` of clips and their still versions with `model`, which must be in evaluation mode."""
    device = next(model.parameters()).device
    rows: list[tuple[LatentActions, Tensor, LatentActions, Tensor]] = []
    for clips in progress(batches, "measuring latents"):
        frames = model.to_pixels(clips.to(device))
        first = rearrange(frames[:, 0], "b m c h w -> b (m c) h w")
        thumbnail = F.adaptive_avg_pool2d(first, _THUMBNAIL).flatten(1)
        latents = model.encode(frames)
        rows.append((latents, decoder_input(model, latents), model.encode(still_clip(frames)), thumbnail))
    moving, quantized, still, pixels = zip(*rows, strict=True)
    return ClipFeatures(
        latents=LatentActions.joined(moving).to("cpu"),
        quantized=torch.cat(quantized).cpu(),
        still=LatentActions.joined(still).to("cpu"),
        pixels=torch.cat(pixels).cpu(),
    )


def decoder_input(model: LatentActionQuantizer, latents: LatentActions) -> Float[Tensor, "b n s v"]:
    """Code vectors of `latents`, or the encoder's vectors if the quantizer has no codes, on the model's device."""
    latents = latents.to(next(model.parameters()).device)
    return latents.require_vectors() if latents.codes is None else model.lookup(latents.codes)


def still_clip(frames: Float[Tensor, "b t m c h w"]) -> Float[Tensor, "b t m c h w"]:
    """The first frame of each clip, repeated: a clip in which nothing moves."""
    return frames[:, :1].expand_as(frames)
