"""Run a quantizer on held-out clips and draw its predictions and codes.

Only the first transition of each clip is drawn.

Shapes: g codes by which clips are grouped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hlrp.laq.k_means import k_means
from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import LatentActions
from hlrp.measure.action_probe import Chunks
from hlrp.measure.clip_features import decoder_input, still_clip
from hlrp.measure.code_usage import most_frequent
from hlrp.measure.laq_quality import LAQQuality, QualityClips, evaluating
from hlrp.measure.reconstruction import PICTURE_BATCH
from hlrp.report.plots.latent_plots import (
    AtlasEntry,
    atlas_figure,
    checks_figure,
    first_camera,
    gain_figure,
    prediction_figure,
    probe_figure,
    transfer_figure,
)
from hlrp.report.plots.run_plots import code_usage_figure
from hlrp.runtime.progress import progress

_ROWS = 5
"""Number of clips in the plots of predictions, transfers and checks."""
_TARGETS = 6
"""Number of frames of other episodes in the plot of transfers."""
_COLUMNS = 8
"""Number of codes in a row of the atlas: all codes of a small codebook, else the most frequent ones."""
_EXAMPLES = 2
"""Number of example clips for each code of the atlas."""


def latent_gallery(model: LatentActionQuantizer, clips: QualityClips, quality: LAQQuality) -> dict[str, bytes]:
    """Draw all plots of a quantizer's report.

    Args:
        model: The quantizer.
        clips: Held-out clips and their actions.
        quality: Metrics of `model` on `clips`.

    Returns:
        PNG files by name. Plots that need codes, predicted pixels or actions are left out if there are none.
    """
    device = next(model.parameters()).device
    with evaluating(model):
        batches = clips.pictures.split(PICTURE_BATCH)
        latents = LatentActions.joined(
            [model.encode(batch.to(device)) for batch in progress(batches, "drawing latents")]
        ).to("cpu")
        plots: dict[str, bytes] = {}
        pictures = quality.pictures
        if pictures.copy_gain is not None:
            plots |= _predictions(model, clips, latents)
        if pictures.copy_gain is not None and pictures.permuted_copy_gain is not None:
            plots["gains"] = gain_figure(pictures.copy_gain, pictures.copy_gain_moving, pictures.permuted_copy_gain)
    if quality.codes.code_usage is not None and quality.codes.perplexity is not None:
        plots["code_usage"] = code_usage_figure(quality.codes.code_usage, quality.codes.perplexity)
    per_action = quality.probe.probe_r2_per_action_by_features
    if per_action is not None and quality.probe.probe_r2_quantized is not None:
        plots["probes"] = probe_figure(per_action)
    return plots | _atlas(clips, latents, _drawn_actions(clips.chunks, quality), model.spec.codebook_size)


@dataclass(frozen=True)
class _DrawnActions:
    """Actions that the atlas draws: those of the two dimensions that the probe predicts best."""

    dimensions: list[int]
    """Numbers of the two dimensions, or of one if no other varies."""
    actions: Float[Tensor, "b a"]
    """Standardized mean action of each clip, in these dimensions; NaN if its actions are not known."""


def _drawn_actions(chunks: Chunks | None, quality: LAQQuality) -> _DrawnActions | None:
    """Choose the dimensions that the atlas draws; None if no action is known or varies."""
    per_action = quality.probe.probe_r2_per_action_by_features
    if chunks is None or per_action is None or quality.probe.probe_r2_quantized is None:
        return None
    known = {number: value for number, value in enumerate(per_action["quantized"]) if value is not None}
    dimensions = sorted(sorted(known, key=known.__getitem__, reverse=True)[:2])
    steps = rearrange(chunks.held_out, "b (h a) -> b h a", a=chunks.dimensions)
    return _DrawnActions(dimensions, steps.float().mean(1)[:, dimensions])


def _predictions(model: LatentActionQuantizer, clips: QualityClips, latents: LatentActions) -> dict[str, bytes]:
    """Draw predicted frames: of the clip itself, of still and reversed clips, and of transferred codes."""
    device = next(model.parameters()).device
    rows = _moving_clips(clips, _ROWS)
    frames = model.to_pixels(clips.pictures[rows].to(device))
    before, after = frames[:, 0], frames[:, 1]

    def predict(first: Float[Tensor, "b m c h w"], vectors: Float[Tensor, "b s v"]) -> Float[Tensor, "b c h w"]:
        return first_camera(model.predict(first[:, None], vectors[:, None].to(device))[:, 0])

    still, backwards = (decoder_input(model, model.encode(clip)) for clip in (still_clip(frames), frames.flip(1)))
    codes = None if latents.codes is None else latents.codes[rows, 0]
    vectors = decoder_input(model, latents.rows(rows))[:, 0]
    rgb_before, rgb_after = first_camera(before), first_camera(after)
    own = predict(before, vectors)
    still_prediction = predict(before, still[:, 0])
    # The reversed clip's last transition is the clip's first one; from the later frame it should lead back to frame t.
    reversed_prediction = predict(after, backwards[:, -1])
    plots = {
        "predictions": prediction_figure(rgb_before, rgb_after, own, codes),
        "checks": checks_figure(rgb_before, rgb_after, still_prediction, reversed_prediction),
    }
    others = _targets(clips, rows)
    targets = model.to_pixels(clips.pictures[others].to(device))[:, 0]
    moved = [predict(targets, own_vectors.expand(len(others), -1, -1)) for own_vectors in vectors]
    plots["transfer"] = transfer_figure(
        torch.stack([rgb_before, rgb_after], dim=1), first_camera(targets), torch.stack(moved)
    )
    return plots


def _moving_clips(clips: QualityClips, count: int) -> Int[Tensor, " _"]:
    """Choose `count` clips, evenly spread over the half of the clips with the most motion; still clips show nothing."""
    motion = (clips.pictures[:, 1].float() - clips.pictures[:, 0].float()).abs().mean((1, 2, 3, 4))
    order = motion.argsort(descending=True)
    order = order[: max(len(order) // 2, min(count, len(order)))]
    return order[torch.linspace(0, len(order) - 1, min(count, len(order))).long()]


def _targets(clips: QualityClips, rows: Int[Tensor, " b"]) -> Int[Tensor, " _"]:
    """Choose the first clip of each of `_TARGETS` episodes; episodes of `rows` come last.

    Transferred codes are a test only on frames of other episodes than the ones that the codes come from.
    """
    used = set(clips.episode[rows].tolist())
    first = {int(episode): i for i, episode in reversed(list(enumerate(clips.episode[: len(clips.pictures)])))}
    order = sorted(first, key=lambda episode: (episode in used, first[episode]))
    return torch.tensor([first[episode] for episode in order[:_TARGETS]])


def _atlas(
    clips: QualityClips, latents: LatentActions, drawn: _DrawnActions | None, codebook_size: int
) -> dict[str, bytes]:
    """Draw clips grouped by code tuple and by the code of each slot; without codes, by k-means of the vectors."""
    actions = None if drawn is None else drawn.actions
    draw = partial(atlas_figure, dimensions=() if drawn is None else drawn.dimensions)
    if latents.codes is None:
        vectors = rearrange(latents.require_vectors()[:, 0], "b s v -> b (s v)").double()
        centres = k_means(vectors, min(_COLUMNS, len(vectors)), torch.Generator().manual_seed(0))
        group = torch.cdist(vectors, centres).argmin(1)
        return {"atlas: groups of vectors": draw(_entries(clips, group[:, None], actions, "group "))}
    codes = latents.codes[:, 0]
    plots = {"atlas: code tuples": draw(_entries(clips, codes, actions, ""))}
    for slot in range(codes.shape[1]):
        plots[f"atlas: slot {slot}"] = draw(
            _entries(clips, codes[:, slot : slot + 1], actions, "code ", in_order=codebook_size <= _COLUMNS)
        )
    return plots


def _entries(
    clips: QualityClips,
    names: Int[Tensor, "b g"],
    actions: Float[Tensor, "_ a"] | None,
    prefix: str,
    *,
    in_order: bool = False,
) -> list[AtlasEntry]:
    """Group clips by `names`: the `_COLUMNS` most frequent ones, ordered by frequency, or with `in_order` by number."""
    kinds = most_frequent(names, _COLUMNS)
    if in_order:
        kinds = kinds[kinds[:, 0].argsort()]
    actions = None if actions is None else actions[: len(names)]
    labels = [prefix + " ".join(map(str, kind)) for kind in kinds.tolist()]
    return [_entry(clips, (names == kind).all(1), label, actions) for kind, label in zip(kinds, labels, strict=True)]


def _entry(
    clips: QualityClips, members: Bool[Tensor, " b"], name: str, actions: Float[Tensor, "b a"] | None
) -> AtlasEntry:
    pictures = clips.pictures[members]
    before, after = (first_camera(pictures[:, at].float() / 255) for at in (0, 1))
    change = (after - before).mean(1)
    by_motion = change.abs().mean((1, 2)).argsort(descending=True)  # examples without motion would show nothing
    finite = None if actions is None else actions[members & actions.isfinite().all(1)]
    examples = by_motion[torch.linspace(0, len(by_motion) // 2, min(_EXAMPLES, len(by_motion))).long()]
    return AtlasEntry(
        name=name,
        share=float(members.float().mean()),
        change=change.mean(0),
        before=before[examples],
        after=after[examples],
        actions=None if finite is None or not len(finite) else finite,
    )
