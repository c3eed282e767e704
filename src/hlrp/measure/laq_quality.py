"""Quality metrics of a quantizer on held-out clips: prediction of motion, use of codes, and relation to actions.

Shapes: b clips, i clips for fitting, j held-out clips, o chunk steps (h is the height of a frame here).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from hlrp.laq.model import LatentActionQuantizer
from hlrp.measure.action_probe import (
    NO_PROBE,
    Chunks,
    ProbeMetrics,
    code_features,
    has_finite_actions,
    probe_metrics,
    standardized,
)
from hlrp.measure.clip_features import clip_features
from hlrp.measure.code_usage import NO_CODE_USAGE, CodeUsage, code_usage
from hlrp.measure.linear_probe import fit_probe
from hlrp.measure.motion import ReversalMetrics, StillMetrics, reversal_metrics, still_metrics
from hlrp.measure.reconstruction import NO_PICTURES, PictureMetrics, picture_metrics
from hlrp.measure.transfer import NO_TRANSFER, TransferMetrics, transfer_metrics


@dataclass(frozen=True, kw_only=True)
class LAQQuality:
    """Metrics of one quantizer on held-out clips of one dataset."""

    reversal: ReversalMetrics
    still: StillMetrics
    codes: CodeUsage
    transfer: TransferMetrics
    pictures: PictureMetrics
    probe: ProbeMetrics

    clips: int
    """Number of held-out clips for the metrics of codes and probes."""
    picture_clips: int
    """Number of held-out clips for the metrics of predicted frames, a subset of `clips`."""
    episodes: int
    """Number of episodes that the held-out clips come from."""

    def to_dict(self) -> dict[str, object]:
        """The metrics of all parts side by side as plain values, the content of `quality.json`."""
        values = {
            **asdict(self.reversal),
            **asdict(self.still),
            **asdict(self.codes),
            **asdict(self.transfer),
            **asdict(self.pictures),
            **asdict(self.probe),
            "clips": self.clips,
            "picture_clips": self.picture_clips,
            "episodes": self.episodes,
        }
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@dataclass(frozen=True)
class QualityClips:
    """Clips on which a quantizer is measured. The iterables of batches can be read more than once."""

    fit: Iterable[UInt8[Tensor, "_ t m c h w"]]
    """Batches of the clips of training episodes on which the probes are fitted."""
    held_out: Iterable[UInt8[Tensor, "_ t m c h w"]]
    """Batches of the j clips of held-out episodes on which everything is measured."""
    episode: Int[Tensor, " j"]
    """Episode of each held-out clip."""
    pictures: UInt8[Tensor, "b t m c h w"]
    """The first b held-out clips, in memory."""
    fit_actions: Float[Tensor, "i o a"] | None
    """Actions from the first to the last frame of each fitting clip, in dataset units; NaN or infinite if not known.
    None for a source without actions."""
    held_out_actions: Float[Tensor, "j o a"] | None
    """Actions of each held-out clip, in the form of `fit_actions`."""

    @property
    def chunks(self) -> Chunks | None:
        """Standardized actions for the probes; None if fewer than 2 fitting clips or no held-out clip have actions."""
        if self.fit_actions is None or self.held_out_actions is None:
            return None
        if has_finite_actions(self.fit_actions).sum() < 2 or not has_finite_actions(self.held_out_actions).any():
            return None
        return standardized(self.fit_actions, self.held_out_actions, self.episode)


def measure_quality(model: LatentActionQuantizer, clips: QualityClips) -> LAQQuality:
    """Compute all metrics of `model`; the model itself is not changed.

    Raises:
        ValueError: If a weight of the model is NaN or infinite.
    """
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise ValueError(
            "the weights of this quantizer are NaN or infinite, since its training diverged; train it again with a "
            "smaller --optimizer.lr or another precision"
        )
    with evaluating(model):
        fit, held_out = (clip_features(model, batches) for batches in (clips.fit, clips.held_out))
        backwards = clip_features(model, clips.pictures.flip(1).split(_BATCH)).latents
        first = torch.arange(len(clips.pictures))
        shown = held_out.latents.rows(first)
        if "pixels" in model.config.targets:
            pictures = picture_metrics(model, clips.pictures, shown, held_out.still.rows(first))
            transfer = transfer_metrics(model, clips.pictures, clips.episode[first], shown)
        else:
            pictures, transfer = NO_PICTURES, NO_TRANSFER
    k, chunks = model.spec.codebook_size, clips.chunks
    codes = held_out.latents.codes
    reversal = reversal_metrics(
        shown,
        backwards,
        None if chunks is None else fit_probe(code_features(fit.latents, k), chunks.fit),
        codebook_size=k,
        dimensions=1 if chunks is None else chunks.dimensions,
    )
    return LAQQuality(
        reversal=reversal,
        still=still_metrics(held_out.still),
        codes=NO_CODE_USAGE if codes is None else code_usage(codes, k),
        transfer=transfer,
        pictures=pictures,
        probe=NO_PROBE if chunks is None else probe_metrics(fit, held_out, chunks, k),
        clips=len(held_out.pixels),
        picture_clips=len(clips.pictures),
        episodes=len(clips.episode.unique()),
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run the block in evaluation mode and without gradients; afterwards restore the training mode of the model."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


_BATCH = 256
"""Clips that are encoded at once."""
