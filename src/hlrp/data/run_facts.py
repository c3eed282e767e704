"""Facts about the data of a training run, as plain values by name, to check that a resumed run has the same data.

Folders may move, so contents are compared: lengths of episodes, and actions, codes and instructions if there are any.
Pixels are not read; a source that has only pixels is identified by its folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from hlrp.data.episode_split import TrainingSource
from hlrp.data.observation_sources import ObservationSource
from hlrp.latents import fingerprint


def clip_facts(sources: Sequence[TrainingSource], folders: Sequence[str | None]) -> dict[str, object]:
    """Facts about the sources of stage 1; `folders` are those of the sources, None for a source opened by repo id."""
    facts: dict[str, object] = {}
    for number, (part, folder) in enumerate(zip(sources, folders, strict=True), start=1):
        source = part.source
        content = {"bounds": source.bounds, **({} if source.actions is None else {"actions": source.actions})}
        facts |= _facts(
            f"source {number}",
            source.bounds,
            fps=source.fps,
            cameras=source.cameras,
            held_out=part.held_out,
            content=content,
            folder=folder if source.actions is None else None,
        )
        facts[f"the list of labelled episodes of source {number}"] = part.labelled.tolist()
    return facts


def observation_facts(sources: Sequence[ObservationSource], folders: Sequence[str | None]) -> dict[str, object]:
    """Facts about the datasets of stage 2; `folders` are those of the datasets, None for one opened by repo id."""
    facts: dict[str, object] = {}
    for number, (source, folder) in enumerate(zip(sources, folders, strict=True), start=1):
        labels = source.labels
        content = {"episode": source.episode, "train": source.train.index, "held_out": source.held_out.index}
        if labels is not None:
            content |= {"codes": labels.codes, "valid": labels.valid}
        lengths = source.episode.bincount()
        ends = lengths.cumsum(0)
        facts |= _facts(
            f"source {number}",
            torch.stack([ends - lengths, ends], dim=1),
            fps=source.fps,
            cameras=source.cameras,
            held_out=source.episode[source.held_out.index].unique(),
            content=content,
            folder=folder if labels is None else None,
            instructions=source.instructions,
        )
        facts[f"the fingerprint of the LAQ of source {number}"] = source.laq_fingerprint
    return facts


def _facts(
    which: str,
    bounds: Tensor,
    *,
    fps: float,
    cameras: Sequence[str],
    held_out: Tensor,
    content: dict[str, Tensor],
    folder: str | None,
    instructions: Sequence[str] = (),
) -> dict[str, object]:
    facts: dict[str, object] = {
        f"the number of episodes of {which}": len(bounds),
        f"the number of frames of {which}": int((bounds[:, 1] - bounds[:, 0]).sum()),
        f"the frame rate of {which}": fps,
        f"the list of cameras of {which}": list(cameras),
        f"the list of held-out episodes of {which}": held_out.tolist(),
        f"the fingerprint of the content of {which}": fingerprint(content, {"instructions": list(instructions)}),
    }
    if folder is not None:
        facts[f"the folder of {which}"] = os.path.abspath(folder)
    return facts
