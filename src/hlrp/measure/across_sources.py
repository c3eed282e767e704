"""Whether the codes of a quantizer mean the same on every source it was trained on.

A code may mean "to the left" on one robot and something else in another video. Two measurements show this. Codes of a
clip of one source are decoded from a frame of another source, and encoded again (see `hlrp.measure.transfer`). A linear
map from codes to actions that was fitted on one source is scored on another source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import permutations

import torch

from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import LatentActions
from hlrp.measure.action_probe import code_features, pooled_r2, probe_episodes
from hlrp.measure.clip_features import clip_features
from hlrp.measure.code_usage import agreement, chance_agreement
from hlrp.measure.laq_quality import QualityClips, evaluating
from hlrp.measure.transfer import reencoded

_CLIPS = 256
"""Largest number of clips of a source whose codes are transferred."""


@dataclass(frozen=True, kw_only=True)
class SourcePair:
    """How far codes keep their meaning from one source to another, on held-out clips of both."""

    codes_of: str
    """Source whose codes are used."""
    frames_of: str
    """Source to which they are applied."""
    transfer_consistency: float | None
    """Share of the codes that are found again after they were decoded from frames of the other source, in [0, 1]. None
    for a quantizer without codes or one that predicts no pixels."""
    transfer_chance: float | None
    """`transfer_consistency` to expect by chance."""
    probe_r2: float | None
    """R² of the other source's actions, by a linear map from codes, fitted on this source. None unless both have
    actions with as many dimensions and steps in a clip."""
    own_probe_r2: float | None
    """R² of this source's own held-out actions, by the same map: an upper reference for `probe_r2`."""


@torch.no_grad()
def across_sources(model: LatentActionQuantizer, sources: Mapping[str, QualityClips]) -> list[SourcePair]:
    """Measure every ordered pair of sources.

    Args:
        model: The quantizer.
        sources: Held-out clips, and clips for fitting a linear map, by the name of the source; two or more.
    """
    with evaluating(model):
        device = next(model.parameters()).device
        latents = {
            name: model.encode(model.to_pixels(clips.pictures[:_CLIPS].to(device))).to("cpu")
            for name, clips in sources.items()
        }
        return [_pair(model, one, other, sources, latents) for one, other in permutations(sources, 2)]


def _pair(
    model: LatentActionQuantizer,
    one: str,
    other: str,
    sources: Mapping[str, QualityClips],
    latents: Mapping[str, LatentActions],
) -> SourcePair:
    consistency, chance = _transfer(model, latents[one], sources[other])
    probe_r2, own = _probe(model, sources[one], sources[other])
    return SourcePair(
        codes_of=one,
        frames_of=other,
        transfer_consistency=consistency,
        transfer_chance=chance,
        probe_r2=probe_r2,
        own_probe_r2=own,
    )


def _transfer(
    model: LatentActionQuantizer, latents: LatentActions, frames: QualityClips
) -> tuple[float | None, float | None]:
    """Share of the codes of `latents` that come back from clips that start with `frames`, and the share by chance."""
    if latents.codes is None or "pixels" not in model.config.targets:
        return None, None
    rows = torch.arange(min(len(frames.pictures), len(latents.codes)))
    sent = latents.rows(rows)
    back = reencoded(model, frames.pictures[rows], sent).codes
    assert sent.codes is not None
    assert back is not None
    return agreement(sent.codes, back), chance_agreement(sent.codes, back, model.spec.codebook_size)


def _probe(model: LatentActionQuantizer, fit: QualityClips, test: QualityClips) -> tuple[float | None, float | None]:
    """R² on `test`, and on the held-out clips of `fit`, of a linear map from codes to actions fitted on `fit`."""
    if fit.chunks is None or fit.fit_actions is None or test.held_out_actions is None:
        return None, None
    if fit.fit_actions.shape[1:] != test.held_out_actions.shape[1:]:
        return None, None
    mixed = replace(fit, held_out=test.held_out, held_out_actions=test.held_out_actions, episode=test.episode)
    if mixed.chunks is None:
        return None, None
    size = model.spec.codebook_size
    fitted, own, foreign = (
        code_features(clip_features(model, batches).latents, size) for batches in (fit.fit, fit.held_out, test.held_out)
    )
    return (
        pooled_r2(probe_episodes(fitted, foreign, mixed.chunks)),
        pooled_r2(probe_episodes(fitted, own, fit.chunks)),
    )
