"""Look for the cause of the R² that codes lose compared with vectors on the randomly chosen tasks.

A quantizer that the section `drawn_tasks` trained is measured again, by task and by action dimension. For each task,
numbers that could explain the loss are measured on the same held-out clips, and correlated with it over the tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.laq_ranking import spearman
from benchmarks.laq_tasks import episode_tasks, task_clips, task_features
from hlrp.data.dataset import open_dataset, read_vectors, value_names
from hlrp.data.sources import lerobot_source
from hlrp.laq.checkpoint import LoadedLAQ, load_laq
from hlrp.measure.action_probe import code_features, pooled_r2, probe_episodes, probe_metrics, standardized
from hlrp.measure.held_out import ClipBatchReader
from hlrp.measure.laq_quality import QualityClips
from hlrp.runtime.tables import table

MOVING = 0.03
"""A pixel counts as moving if the mean absolute change of its channels exceeds this, in [0, 1]."""
STATE = "observation.state"
"""Column with the position of the hand, in metres, and the opening of the gripper."""
_HAND = 3
"""Number of the values of `STATE` that are the position of the hand."""
_EXPLAINED = ("loss", "codes", "vectors")
_EXPLAINING = ("moving_pixels", "hand_mm", "displacement")


def run(laq_path: Path, dataset_root: Path) -> dict[str, Any]:
    """Measure every task that has held-out episodes.

    Returns:
        `tasks`: by task, `codes` and `vectors` (R² within the task), `loss` (their difference), `by_dimension` (the
        same three for each action dimension; None for one that is constant), `motion` (the same three for the hand's
        true displacement over the clip instead of the actions), `displacement` (R² of the actions from the
        true displacement of the hand and the gripper over the clip, an upper reference), `moving_pixels` (share of the
        pixels of a clip that move), `hand_mm` (displacement of the hand over a clip) and `clips`.
        `spearman`: `{explained: {explaining: correlation over tasks}}`.

    Raises:
        FileNotFoundError: If there is no quantizer in `laq_path`.
    """
    if not laq_path.is_dir():
        raise FileNotFoundError(
            f"{laq_path} is missing; run the section drawn_tasks first, which trains this quantizer"
        )
    laq = load_laq(laq_path)
    dataset = open_dataset("local/hlrp_demos", dataset_root)
    source = lerobot_source(dataset, cameras=laq.cameras, image_size=laq.model.config.image_size, cache_gib=1)
    state = read_vectors(dataset.meta, STATE)
    assert state is not None, "recorded demonstrations have states"
    names = value_names(dataset.meta.features["action"]) or []
    tasks, found = episode_tasks(dataset), {}
    for task in dict.fromkeys(tasks):
        clips = task_clips(laq, source, [one == task for one in tasks])
        if clips is not None:
            found[task] = _measure(laq, clips, state, names)
    result = {"tasks": found, "spearman": correlations(found)}
    print(_table(found))
    print(table(["Spearman's correlation", *_EXPLAINING], _rows(result["spearman"])))
    return result


def _measure(
    laq: LoadedLAQ, clips: QualityClips, state: Float[Tensor, "f x"], dimensions: Sequence[str]
) -> dict[str, Any]:
    assert clips.chunks is not None, "recorded demonstrations have actions"
    assert isinstance(clips.fit, ClipBatchReader)
    assert isinstance(clips.held_out, ClipBatchReader)
    features = task_features(laq, clips)
    metrics = probe_metrics(*features, clips.chunks, laq.model.spec.codebook_size)
    by_input = metrics.probe_r2_per_action_by_features
    assert by_input is not None
    fit_moves, moves = (_moves(state, clip.start, int(clip.deltas[-1])) for clip in (clips.fit, clips.held_out))
    motion = standardized(fit_moves[:, None, :_HAND], moves[:, None, :_HAND], clips.episode)
    codes = [code_features(part.latents, laq.model.spec.codebook_size) for part in features]
    vectors = [part.latents.require_vectors().flatten(1) for part in features]
    changes = torch.cat([moving_share(batch) for batch in clips.held_out])
    return {
        **_loss(metrics.probe_r2, metrics.probe_r2_vectors),
        "by_dimension": {
            name: _loss(by_input["codes"][place], by_input["vectors"][place]) for place, name in enumerate(dimensions)
        },
        "motion": _loss(*(pooled_r2(probe_episodes(fit, test, motion)) for fit, test in (codes, vectors))),
        "displacement": pooled_r2(probe_episodes(fit_moves, moves, clips.chunks)),
        "moving_pixels": float(changes.mean()),
        "hand_mm": 1000 * float(moves[:, :_HAND].norm(dim=1).mean()),
        "clips": len(changes),
    }


def moving_share(clips: Tensor) -> Float[Tensor, " b"]:
    """Share of the pixels of each clip, uint8 (b, t, m, c, h, w), that move from its first to its last frame."""
    first, last = clips[:, 0].float(), clips[:, -1].float()
    return ((last - first).abs().mean(2) > 255 * MOVING).float().flatten(1).mean(1)


def correlations(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Spearman's correlation over tasks of every explained number with every explaining one."""

    def values(name: str) -> Float[np.ndarray, "1 i"]:
        return np.array([[row[name] for row in tasks.values()]], dtype=float)

    return {one: {other: float(spearman(values(one), values(other))[0]) for other in _EXPLAINING} for one in _EXPLAINED}


def _moves(state: Float[Tensor, "f x"], start: Int[Tensor, " b"], length: int) -> Float[Tensor, "b x"]:
    return state[start + length] - state[start]


def _loss(codes: float | None, vectors: float | None) -> dict[str, float | None]:
    return {"codes": codes, "vectors": vectors, "loss": None if codes is None or vectors is None else vectors - codes}


def _table(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    dimensions = list(next(iter(tasks.values()))["by_dimension"])
    rows = []
    for task, row in tasks.items():
        pairs = (row, *(row["by_dimension"][name] for name in dimensions), row["motion"])
        scores = [f"{number(one['codes'])} / {number(one['vectors'])}" for one in pairs]
        rows.append([task, *scores, *(number(row[name]) for name in _EXPLAINING), str(row["clips"])])
    return table(["R² codes / vectors", "all", *dimensions, "hand's motion", *_EXPLAINING, "clips"], rows)


def _rows(found: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    return [[one, *(f"{value:.2f}" for value in row.values())] for one, row in found.items()]
