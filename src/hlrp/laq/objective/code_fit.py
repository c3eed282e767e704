"""Fit the codes of a quantizer of the kind `kmeans` to the vectors of its trained encoder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from hlrp.laq.batch import ClipBatch
from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.objective.config import ViewConfig
from hlrp.laq.objective.views import altered_view
from hlrp.laq.quantizers.kmeans import WhitenedKMeans
from hlrp.runtime.progress import progress
from hlrp.training.evaluation_mode import evaluation_mode

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CodeFit:
    """When codes are fitted, and on which clips."""

    step: int
    """Training step before which codes are fitted; in the remaining steps the decoder learns these codes."""
    clips: Callable[[], Iterable[ClipBatch]]
    """Clips as they will be labelled: forwards, at the nominal offset. They are the same on every process."""
    to_actions: bool = False
    """Whether codes are fitted to the actions of the labelled clips, and not to the video."""


def fit_codes(
    model: LatentActionQuantizer, batches: Iterable[ClipBatch], views: ViewConfig, *, to_actions: bool = False
) -> None:
    """Encode two altered views of every clip, and fit the codes of `model` to them.

    Args:
        model: Quantizer of the kind `kmeans`; only its codes change.
        batches: Clips, with the random numbers of the first view; the second takes those of the next clip.
        views: Largest changes of a view in position, brightness and contrast.
        to_actions: Fit the codes to the actions of the labelled clips, of which there must be some.
    """
    assert isinstance(model.quantizer, WhitenedKMeans)
    device = next(model.parameters()).device
    pairs, actions, labelled = [], [], []
    with evaluation_mode(model), torch.no_grad(), torch.autocast(device.type, enabled=False):
        for batch in progress(batches, "fitting codes"):
            batch = batch.to(device)
            pixels = model.to_pixels(batch.frames)
            draws = (batch.views, batch.views.roll(1, dims=0))
            encoded = [model.encoder(altered_view(pixels, one, views)).flatten(0, 1) for one in draws]
            pairs.append(torch.stack(encoded))
            actions.append(batch.actions.flatten(0, 1))
            labelled.append(batch.labelled.repeat_interleave(batch.actions.shape[1]))
    one, other = torch.cat(pairs, dim=1)
    if to_actions:
        known = torch.cat(labelled)
        model.quantizer.fit(one, other, torch.cat(actions), known)
        fitted = f"the actions of {int(known.sum())} of {len(one)} transitions"
    else:
        model.quantizer.fit(one, other)
        fitted = f"{len(one)} transitions"
    logger.info(f"codes fitted to {fitted}; the encoder stays as it is from now on")
