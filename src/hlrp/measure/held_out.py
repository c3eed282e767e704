"""Choose the clips of a source on which a quantizer is measured, and compute its quality metrics on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from hlrp.data.clip_starts import clip_starts
from hlrp.data.dataset import episode_of_frame
from hlrp.data.frames import StackedFrames
from hlrp.data.sources import ClipSource
from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import LatentSpec
from hlrp.measure.action_probe import has_finite_actions
from hlrp.measure.baselines import LabelledClips
from hlrp.measure.laq_quality import LAQQuality, QualityClips, measure_quality

_PROBE_CLIPS = 4096
"""Largest number of clips on which a probe is fitted, and scored; more change only the third digit of R²."""
_READ_TOGETHER = 256
"""Clips that are read and encoded at once."""
_PICTURE_CLIPS = 512
"""Largest number of held-out clips that are kept in memory for the metrics of predicted frames."""


@dataclass(frozen=True)
class ClipBatchReader:
    """Iterable over batches of clips, which are read again in every pass."""

    frames: StackedFrames
    start: Int[Tensor, " b"]
    """Absolute index of the first frame of each clip."""
    deltas: Int[Tensor, " t"]
    """Frames of a clip, relative to its first frame."""

    def __len__(self) -> int:
        return -(-len(self.start) // _READ_TOGETHER)

    def __iter__(self) -> Iterator[UInt8[Tensor, "_ t m c h w"]]:
        return (self.frames.read(chunk[:, None] + self.deltas) for chunk in self.start.split(_READ_TOGETHER))


def evaluate_laq(
    model: LatentActionQuantizer,
    source: ClipSource,
    train: Int[Tensor, " _"],
    held_out: Int[Tensor, " _"],
    *,
    seed: int,
) -> LAQQuality:
    """Quality metrics of `model` on `held_out` episodes, with probes that are fitted on `train` episodes.

    Raises:
        ValueError: If no episode of `train`, or none of `held_out`, is long enough for a clip.
    """
    return measure_quality(model, quality_clips(source, model.spec, train, held_out, seed=seed))


def quality_clips(
    source: ClipSource, spec: LatentSpec, train: Int[Tensor, " _"], held_out: Int[Tensor, " _"], *, seed: int
) -> QualityClips:
    """Sample the clips on which a quantizer with the geometry `spec` is measured.

    Probes are fitted on clips with known actions, so that a few labelled episodes among many others all count.

    Raises:
        ValueError: If no episode of `train`, or none of `held_out`, is long enough for a clip.
    """
    deltas = torch.tensor(spec.frame_deltas(source.fps))
    generator = torch.Generator().manual_seed(seed)

    def sampled(found: Int[Tensor, " _"]) -> Int[Tensor, " b"]:
        return found[torch.randperm(len(found), generator=generator)[:_PROBE_CLIPS]]

    fit, test = (clip_starts(source, deltas.tolist(), episodes) for episodes in (train, held_out))
    fit_actions = test_actions = None
    actions = source.recorded_actions
    if actions is not None:
        known = has_known_actions(actions, fit, int(deltas[-1]))
        fit = fit[known] if known.any() else fit
    fit, test = sampled(fit), sampled(test)
    if actions is not None:
        fit_actions, test_actions = (action_chunks(actions, start, int(deltas[-1])) for start in (fit, test))
    return QualityClips(
        fit=ClipBatchReader(source.frames, fit, deltas),
        held_out=ClipBatchReader(source.frames, test, deltas),
        episode=episode_of_frame(source.bounds)[test],
        pictures=source.frames.read(test[:_PICTURE_CLIPS, None] + deltas),
        fit_actions=fit_actions,
        held_out_actions=test_actions,
    )


def labelled_clips(source: ClipSource, spec: LatentSpec, episodes: Int[Tensor, " e"]) -> LabelledClips:
    """All clips of `episodes` whose actions are finite, with these actions.

    Raises:
        ValueError: If no episode is long enough for a clip, or none has known actions.
    """
    recorded = source.recorded_actions
    if recorded is None:
        raise ValueError(f"{source.name} has no actions to learn from; leave the baselines out")
    deltas = torch.tensor(spec.frame_deltas(source.fps))
    start = clip_starts(source, deltas.tolist(), episodes)
    actions = action_chunks(recorded, start, int(deltas[-1]))
    known = has_finite_actions(actions)
    if not known.any():
        raise ValueError(
            f"every clip of the {len(episodes)} labelled episodes of {source.name} holds an action that is NaN or "
            "infinite; choose more episodes, or leave the baselines out"
        )
    return LabelledClips(
        frames=source.frames.read(start[known, None] + deltas), actions=actions[known], episodes=len(episodes)
    )


def action_chunks(actions: Float[Tensor, "f a"], start: Int[Tensor, " b"], length: int) -> Float[Tensor, "b h a"]:
    """For each frame in `start`, the `length` actions from this frame on."""
    return actions[start[:, None] + torch.arange(length)]


def has_known_actions(actions: Float[Tensor, "f a"], start: Int[Tensor, " b"], length: int) -> Bool[Tensor, " b"]:
    """For each frame in `start`, whether the `length` actions from this frame on are finite."""
    return actions.isfinite().all(1)[start[:, None] + torch.arange(length)].all(1)
