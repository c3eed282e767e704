"""Does the decoder see motion, and does it get it from the codes?

Shapes: b clips, t frames, n = t-1 transitions, c h w a frame, s code slots, v code width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from hlrp.laq.model import LatentActionQuantizer
from hlrp.measure.clip_features import Latents, still_clip
from hlrp.runtime.progress import progress

MOVING = 0.05
"""A pixel moves where a channel of it changes by more than this share of its range: above what compression leaves."""
PICTURE_BATCH = 64
"""Clips decoded at once."""


@dataclass(frozen=True, kw_only=True)
class PictureFigures:
    """Squared errors of predicted frames, beside those of copying frame t. None where the model predicts no pixels."""

    copy_gain: float | None
    """1 - (squared error of the prediction) / (squared error of copying frame t); 0 is a copy, 1 perfect."""
    copy_gain_moving: float | None
    """The same over moving pixels alone, those that change by more than `MOVING` of their range."""
    permuted_copy_gain: float | None
    """`copy_gain` when every clip is decoded under another clip's codes: negative where codes mislead."""
    permuted_gain_ratio: float | None
    """`permuted_copy_gain` over `copy_gain`, 0 where the former is negative: the share of the gain that ignores the
    codes, 1 for a decoder that does not read them. None where there is no gain to share."""
    still_change_ratio: float | None
    """Squared change predicted for still clips, over the squared change in real ones; 0 when none is predicted."""


NO_PICTURES = PictureFigures(
    copy_gain=None, copy_gain_moving=None, permuted_copy_gain=None, permuted_gain_ratio=None, still_change_ratio=None
)
"""Of a model that predicts features, not pixels."""


@torch.no_grad()
def picture_figures(
    model: LatentActionQuantizer, clips: UInt8[Tensor, "b t c h w"], latents: Latents, still: Latents
) -> PictureFigures:
    """Decode clips under their own codes, under each other's, and under those of a still clip.

    Args:
        model: In evaluation mode.
        clips: Held-out clips.
        latents: Theirs.
        still: Of the same clips with frame t repeated.
    """
    device = next(model.parameters()).device
    other = another_clip(len(clips))
    sums = torch.zeros(6, dtype=torch.float64)
    for rows in progress(torch.arange(len(clips)).split(PICTURE_BATCH), "measuring predictions"):
        frames = model.to_pixels(clips[rows].to(device))
        before, after, resting = frames[:, :-1], frames[:, 1:], still_clip(frames)[:, :-1]
        own, permuted = (model.predict(before, latents.quantized[at].to(device)) for at in (rows, other[rows]))
        imagined = model.predict(resting, still.quantized[rows].to(device))
        moving = (after - before).abs().amax(2, keepdim=True) > MOVING
        copy, error = (before - after).square(), (own - after).square()
        terms = (copy, error, moving * copy, moving * error, (permuted - after).square(), (imagined - resting).square())
        sums += torch.stack([term.double().sum() for term in terms]).cpu()
    copy, error, moving_copy, moving_error, permuted_error, still_change = sums.tolist()
    gain, permuted_gain = 1 - error / max(copy, 1e-12), 1 - permuted_error / max(copy, 1e-12)
    return PictureFigures(
        copy_gain=gain,
        copy_gain_moving=1 - moving_error / moving_copy if moving_copy else None,
        permuted_copy_gain=permuted_gain,
        permuted_gain_ratio=max(permuted_gain, 0.0) / gain if gain > 0 else None,
        still_change_ratio=still_change / max(copy, 1e-12),
    )


def another_clip(count: int) -> Int[Tensor, " b"]:
    """For each clip another one, never itself unless it is alone: a random cycle through all clips."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    return partner


def imagine(
    model: LatentActionQuantizer, first: Float[Tensor, "b c h w"], vectors: Float[Tensor, "b n s v"]
) -> Float[Tensor, "b t c h w"]:
    """Start from `first` and decode one transition after the other, each from the frame predicted before it."""
    clip = [first]
    for transition in vectors.split(1, dim=1):
        clip.append(model.predict(clip[-1][:, None], transition)[:, 0].clamp(0, 1))
    return torch.stack(clip, dim=1)
