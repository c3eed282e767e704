"""Metrics of predicted frames: whether the decoder predicts motion, and whether it takes the motion from the codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import LatentActions
from hlrp.measure.clip_features import decoder_input, still_clip
from hlrp.runtime.progress import progress

MOVING = 0.05
"""A pixel counts as moving if a channel of any camera changes there by more than this, in [0, 1]; compression noise
stays below."""
PICTURE_BATCH = 64
"""Clips that are decoded at once."""


@dataclass(frozen=True, kw_only=True)
class PictureMetrics:
    """Squared errors of predicted frames relative to copying the frame before.

    None if the model predicts no pixels, and for clips in which no pixel changes, where a copy has no error.
    """

    copy_gain: float | None
    """1 - (squared error of the prediction) / (squared error of copying the frame before); 1 is a perfect prediction, 0
    is as good as a copy."""
    copy_gain_moving: float | None
    """`copy_gain` over moving pixels only, those that change by more than `MOVING`; None if no pixel moves."""
    permuted_copy_gain: float | None
    """`copy_gain` if every clip is decoded with the codes of another clip; negative if wrong codes are worse than a
    copy. None for a single clip."""
    permuted_gain_ratio: float | None
    """`permuted_copy_gain` / `copy_gain`, at least 0: the share of the gain that does not depend on the codes. 1 for a
    decoder that ignores the codes. None for a single clip, and if `copy_gain` is not positive."""
    still_change_ratio: float | None
    """Squared change that the decoder predicts for still clips, divided by the squared change of the real clips; 0 if
    it predicts no change."""


NO_PICTURES = PictureMetrics(
    copy_gain=None, copy_gain_moving=None, permuted_copy_gain=None, permuted_gain_ratio=None, still_change_ratio=None
)
"""`PictureMetrics` of a model that predicts no pixels, and of clips in which no pixel changes."""


@torch.no_grad()
def picture_metrics(
    model: LatentActionQuantizer, clips: UInt8[Tensor, "b t m c h w"], latents: LatentActions, still: LatentActions
) -> PictureMetrics:
    """Decode each clip with its own codes, with the codes of another clip, and with the codes of a still clip.

    Args:
        model: Quantizer in evaluation mode that predicts pixels.
        clips: Held-out clips.
        latents: Latents of `clips`.
        still: Latents of still clips: the first frame of each of `clips`, repeated.
    """
    device = next(model.parameters()).device
    other = another_clip(len(clips))
    sums = torch.zeros(6, dtype=torch.float64)
    for rows in progress(torch.arange(len(clips)).split(PICTURE_BATCH), "measuring predictions"):
        frames = model.to_pixels(clips[rows].to(device))
        before, after, resting = frames[:, :-1], frames[:, 1:], still_clip(frames)[:, :-1]
        own, permuted = (model.predict(before, decoder_input(model, latents.rows(at))) for at in (rows, other[rows]))
        imagined = model.predict(resting, decoder_input(model, still.rows(rows)))
        moving = (after - before).abs().amax((2, 3), keepdim=True) > MOVING
        copy, error = (before - after).square(), (own - after).square()
        terms = (copy, error, moving * copy, moving * error, (permuted - after).square(), (imagined - resting).square())
        sums += torch.stack([term.double().sum() for term in terms]).cpu()
    copy, error, moving_copy, moving_error, permuted_error, still_change = sums.tolist()
    if copy == 0:
        return NO_PICTURES
    gain = 1 - error / copy
    permuted_gain = 1 - permuted_error / copy if len(clips) > 1 else None
    return PictureMetrics(
        copy_gain=gain,
        copy_gain_moving=1 - moving_error / moving_copy if moving_copy else None,
        permuted_copy_gain=permuted_gain,
        permuted_gain_ratio=None if permuted_gain is None or gain <= 0 else max(permuted_gain, 0.0) / gain,
        still_change_ratio=still_change / copy,
    )


def another_clip(count: int) -> Int[Tensor, " b"]:
    """Index of another clip for each of `count` clips, the same in every run.

    The pairs form one random cycle through all clips, so that no clip is paired with itself unless it is the only one.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    return partner


def imagine(
    model: LatentActionQuantizer, first: Float[Tensor, "b m c h w"], vectors: Float[Tensor, "b n s v"]
) -> Float[Tensor, "b t m c h w"]:
    """Roll out a clip from its `first` frame (float32 in [0, 1]): each predicted frame is the next step's input."""
    clip = [first]
    for transition in vectors.split(1, dim=1):
        clip.append(model.predict(clip[-1][:, None], transition)[:, 0].clamp(0, 1))
    return torch.stack(clip, dim=1)
