"""Measure the quantizer's defaults on tasks that were not used to choose any default.

The tasks are the first of a seeded shuffle of all Meta-World tasks. One quantizer learns from the video of all of
them, without actions or with those of a few episodes. Linear probes are fitted and scored within each task.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from benchmarks.few_labels_jobs import Job, run_jobs
from benchmarks.few_labels_upstream import train_quantizer
from benchmarks.running import require_same_settings
from hlrp.data.dataset import open_dataset
from hlrp.data.sources import ClipSource, lerobot_source
from hlrp.laq.checkpoint import LoadedLAQ, load_laq
from hlrp.measure.action_probe import probe_metrics
from hlrp.measure.clip_features import ClipFeatures, clip_features
from hlrp.measure.held_out import quality_clips
from hlrp.measure.laq_quality import QualityClips, evaluating
from hlrp.runtime.tables import table
from hlrp.storage.files import write_json

DRAWN_TASKS = (
    "soccer-v3",
    "basketball-v3",
    "peg-insert-side-v3",
    "door-lock-v3",
    "plate-slide-v3",
    "disassemble-v3",
    "assembly-v3",
    "lever-pull-v3",
)
"""The first eight tasks after `random.Random(0).shuffle` of all 50 names in alphabetical order."""
ALL_TASKS = "all tasks"
"""Name in the results of probes that are fitted and scored on all tasks together, as those of the card are."""
LABELLED_SHARE = 0.025
"""Share of the training episodes whose actions the labelled variant uses."""
_VARIANTS = {"": (), "_labelled": (f"--labelled_fraction={LABELLED_SHARE}",)}
"""Options of the quantizer's training, by the ending of the names of its results."""
_HELD_OUT = "--held_out=0.2"
"""A fifth of 20 episodes a task, so that every task has held-out episodes."""
_FEATURES = {"codes": "probe_r2", "vectors": "probe_r2_vectors", "pixels": "probe_r2_pixels"}
"""Names of the results, and of the probes they come from."""

TaskScores = Mapping[str, Mapping[str, float | None]]
"""R² by name of the probe's input, by task."""


@dataclass(frozen=True)
class TaskRun:
    """Settings of the measurement."""

    dataset: Path
    folder: Path
    """Folder of the trained quantizers, with one JSON file of results beside each."""
    steps: int
    seeds: int
    device: str
    workers: int


def run(settings: TaskRun) -> dict[str, Any]:
    """Train what is missing, and measure every quantizer.

    Returns:
        `{task: {"codes", "vectors", "pixels", "codes_labelled", …}}`: R² of the held-out episodes of each task, means
        over seeds. Names that end with `_labelled` are those of the quantizer that learned from a few actions.

    Raises:
        RuntimeError: If a quantizer could not be trained or measured.
        ValueError: If earlier results in the folder were made with another number of steps.
    """
    require_same_settings(settings.folder, {"steps": settings.steps})
    jobs: list[Job] = []
    results: dict[str, list[Path]] = {ending: [] for ending in _VARIANTS}
    for seed in range(settings.seeds):
        options: dict[str, Any] = {"steps": settings.steps, "seed": seed, "device": settings.device}
        laqs = {ending: settings.folder / f"laq{ending}_{seed}" for ending in results}
        for ending, flags in _VARIANTS.items():
            train = partial(train_quantizer, settings.dataset, laqs[ending], **options, flags=(_HELD_OUT, *flags))
            jobs.append(Job(f"LAQ {laqs[ending].name}", laqs[ending], train))
        for ending, laq in laqs.items():
            result = laq.with_suffix(".json")
            jobs.append(Job(f"R² of {laq.name}", result, partial(_measure, laq, settings, result), (laq,)))
            results[ending].append(result)
    if failed := run_jobs(jobs, workers=settings.workers):
        raise RuntimeError("; ".join(failed))
    found = {ending: [json.loads(path.read_text(encoding="utf-8")) for path in of] for ending, of in results.items()}
    means = join(found)
    print(_table(means))
    return means


def _measure(laq: Path, settings: TaskRun, output: Path) -> None:
    write_json(output, task_scores(laq, settings.dataset))


def task_scores(laq_path: Path, dataset_root: Path) -> dict[str, dict[str, float | None]]:
    """R² of codes, vectors and pixels on the held-out episodes of each task; None for a task without any.

    The probes of a task are fitted on its training episodes alone, so that codes which only identify the task get an
    R² of about 0.
    """
    laq = load_laq(laq_path)
    dataset = open_dataset("local/hlrp_demos", dataset_root)
    source = lerobot_source(dataset, cameras=laq.cameras, image_size=laq.model.config.image_size, cache_gib=1)
    tasks = episode_tasks(dataset)
    scores = {task: _scores(laq, source, [one == task for one in tasks]) for task in dict.fromkeys(tasks)}
    return {**scores, ALL_TASKS: _scores(laq, source, [True] * len(tasks))}


def episode_tasks(dataset: LeRobotDataset) -> list[str]:
    """Task of every episode."""
    assert dataset.meta.episodes is not None
    return [names[0] for names in dataset.meta.episodes["tasks"]]


def _scores(laq: LoadedLAQ, source: ClipSource, is_of_task: Sequence[bool]) -> dict[str, float | None]:
    clips = task_clips(laq, source, is_of_task)
    if clips is None:
        return dict.fromkeys(_FEATURES)
    assert clips.chunks is not None, "recorded demonstrations have actions"
    metrics = probe_metrics(*task_features(laq, clips), clips.chunks, laq.model.spec.codebook_size)
    return {name: getattr(metrics, key) for name, key in _FEATURES.items()}


def task_clips(laq: LoadedLAQ, source: ClipSource, is_of_task: Sequence[bool]) -> QualityClips | None:
    """Clips of the training and held-out episodes of a task; None if it has none of either."""
    episodes = torch.tensor(is_of_task).nonzero()[:, 0]
    is_held_out = torch.isin(episodes, torch.tensor(laq.extra["sources"][0]["held_out_episodes"]))
    if not is_held_out.any() or is_held_out.all():
        return None
    return quality_clips(source, laq.model.spec, episodes[~is_held_out], episodes[is_held_out], seed=laq.extra["seed"])


def task_features(laq: LoadedLAQ, clips: QualityClips) -> tuple[ClipFeatures, ClipFeatures]:
    """Inputs of the probes for the clips of training episodes, and for those of held-out episodes."""
    with evaluating(laq.model):
        fit, held_out = (clip_features(laq.model, batches) for batches in (clips.fit, clips.held_out))
    return fit, held_out


def join(found: Mapping[str, Sequence[TaskScores]]) -> dict[str, dict[str, float | None]]:
    """Means over seeds, side by side for all variants.

    Args:
        found: Scores of every seed, by the ending that the names of a variant get; all with the same tasks. A task
            that has no held-out episode with some seed counts with the other seeds.

    Returns:
        Scores by task; `pixels` only once, since they do not depend on the quantizer.
    """
    joined: dict[str, dict[str, float | None]] = {}
    for ending, seeds in found.items():
        for task in seeds[0]:
            row = joined.setdefault(task, {})
            for name in _FEATURES:
                known = [value for scores in seeds if (value := scores[task][name]) is not None]
                if name != "pixels" or not ending:
                    row[name + ending] = mean(known) if known else None
    return joined


def _table(means: Mapping[str, Mapping[str, float | None]]) -> str:
    names = list(next(iter(means.values())))
    rows = [
        [task, *("–" if (value := row[name]) is None else f"{value:.3f}" for name in names)]
        for task, row in means.items()
    ]
    return table(["R² within the task", *names], rows)
