"""Measure whether the codes of one quantizer mean the same on two datasets and on a folder of films.

One quantizer is trained on all three sources with one `hlrp-train-laq`, without any action. Linear maps from its codes,
fitted on the training episodes of one source, are then scored on the held-out episodes of every source. The films are
cut from a third recording, and its actions are kept beside them for these scores alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from jaxtyping import Float
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch import Tensor

from benchmarks.laq_tasks import episode_tasks
from benchmarks.running import require_same_settings, train_laq
from hlrp.data.dataset import episode_bounds, open_dataset, read_actions, require_camera
from hlrp.data.encoding import encode_video
from hlrp.data.frames import stored_frames
from hlrp.data.source_config import SourceConfig
from hlrp.data.sources import ClipSource
from hlrp.data.training_sources import open_source
from hlrp.laq.checkpoint import LoadedLAQ, load_laq
from hlrp.laq.model import LatentActionQuantizer
from hlrp.measure.action_probe import Chunks, code_features, mean_and_scale, pooled_r2, probe_episodes
from hlrp.measure.clip_features import ClipFeatures, clip_features
from hlrp.measure.held_out import quality_clips
from hlrp.measure.laq_quality import QualityClips, evaluating
from hlrp.runtime.tables import table
from hlrp.storage.files import new_directory

FILMS = "films"
"""Name of the folder of films, and of this source in the results."""
SCORED = 3
"""Action dimensions that are scored: the motion of the hand along x, y and z. The gripper's command, the fourth, never
changes in the six tasks."""
_INPUTS = ("codes", "vectors", "pixels")
"""Inputs of the linear maps, and their names in the results."""
_ENCODER = RGBEncoderConfig()
_CACHE_GIB = 1.0
"""Memory for the decoded frames of one source."""

Matrix = dict[str, dict[str, float | None]]
"""R² by the source on which a map is fitted, then by the source on which it is scored."""


@dataclass(frozen=True)
class SourcesRun:
    """Settings of the measurement."""

    datasets: tuple[Path, ...]
    """LeRobotDatasets of the training, with actions of the same four dimensions."""
    recording: Path
    """LeRobotDataset from which the films are cut."""
    films: Path
    """Folder of the films, which are written only once."""
    folder: Path
    """Folder of the trained quantizers."""
    seeds: int = 1
    steps: int = 300
    first_film: int = 30
    """Number of the first episode of each task that becomes a film: the first 30 are also those of `six_tasks_30`."""


def run(settings: SourcesRun) -> dict[str, Any]:
    """Write the films, train one quantizer for each seed, and measure it between all sources.

    Returns:
        `codes`, `vectors` and `pixels`: a `Matrix` of each, means over seeds, from one-hot codes, from the encoder's
        vectors, and from the pixels of frame t. `transferred_codes`: `[share, chance]` of the codes of one source that
        are found again after they were decoded from frames of another one, by the two sources.
    """
    require_same_settings(settings.folder, {"steps": settings.steps})
    write_films(settings.recording, settings.films, first=settings.first_film)
    found = []
    for seed in range(settings.seeds):
        output = settings.folder / f"laq_{seed}"
        names = [f"{{dataset_root: {root}}}" for root in settings.datasets]
        sources = ", ".join([*names, f"{{video_dir: {settings.films}}}"])
        train_laq(output, f"--sources=[{sources}]", f"--steps={settings.steps}", f"--seed={seed}", "--preset=small")
        laq = load_laq(output)
        clips = scored_clips(laq, settings)
        found.append({**between_sources(laq.model, clips), "transferred_codes": transferred_codes(laq, list(clips))})
    result = _mean(found)
    print(_table(result))
    return result


def write_films(recording: Path, folder: Path, *, first: int) -> None:
    """Write the episodes of each task from number `first` on as mp4 files, unless the folder exists.

    The files are encoded as LeRobot encodes videos, and are named in the order of the recording.
    """
    if folder.exists():
        return
    dataset = open_dataset(f"local/{recording.name}", recording)
    camera = require_camera(dataset.meta, None)
    height, width, _ = dataset.features[camera]["shape"]
    frames, bounds = stored_frames(dataset, camera, (height, width)), episode_bounds(dataset.meta)
    with new_directory(folder) as scratch:
        for episode in film_episodes(dataset, first=first):
            path = scratch / f"episode_{episode:04d}.mp4"
            encode_video(path, frames, torch.arange(*bounds[episode].tolist()), fps=dataset.fps, encoder=_ENCODER)


def film_episodes(dataset: LeRobotDataset, *, first: int) -> list[int]:
    """Numbers of the episodes that become films: those of each task from its number `first` on."""
    tasks = episode_tasks(dataset)
    return [number for number, task in enumerate(tasks) if tasks[:number].count(task) >= first]


def scored_clips(laq: LoadedLAQ, settings: SourcesRun) -> dict[str, QualityClips]:
    """Clips of training and held-out episodes of every source, with the actions on which the maps are scored."""
    size = laq.model.config.image_size
    sources: dict[str, ClipSource] = {}
    for root in settings.datasets:
        config = SourceConfig(dataset_root=str(root), cameras=laq.cameras)
        sources[root.name] = open_source(config, image_size=size, cache_gib=_CACHE_GIB)
    films = open_source(SourceConfig(video_dir=str(settings.films)), image_size=size, cache_gib=_CACHE_GIB)
    recording = open_dataset(f"local/{settings.recording.name}", settings.recording)
    actions, bounds = read_actions(recording), episode_bounds(recording.meta)
    known = torch.cat(
        [actions[slice(*bounds[episode].tolist())] for episode in film_episodes(recording, first=settings.first_film)]
    )
    assert len(known) == int(films.bounds[-1, 1]), "a film has as many frames as its episode"
    sources[FILMS] = replace(films, actions=known)
    return {
        name: _clips(laq, source, laq.extra["sources"][number]["held_out_episodes"])
        for number, (name, source) in enumerate(sources.items())
    }


def _clips(laq: LoadedLAQ, source: ClipSource, held_out: list[int]) -> QualityClips:
    episodes = torch.arange(len(source.bounds))
    is_held_out = torch.isin(episodes, torch.tensor(held_out))
    assert source.actions is not None, "every source has actions for the scores"
    source = replace(source, actions=source.actions[:, :SCORED])
    return quality_clips(source, laq.model.spec, episodes[~is_held_out], episodes[is_held_out], seed=laq.extra["seed"])


def between_sources(model: LatentActionQuantizer, sources: Mapping[str, QualityClips]) -> dict[str, Matrix]:
    """R² of linear maps that are fitted on the training episodes of one source and scored on held-out ones of another.

    Args:
        model: The quantizer.
        sources: Clips of each source with known actions.

    Returns:
        A `Matrix` by input of the map: `codes`, `vectors`, `pixels` (frame t alone). All maps that are scored on a
        source predict the same targets, in units of the standard deviation of its own training actions.
    """
    with evaluating(model):
        features = {
            name: tuple(_inputs(clip_features(model, batches), model) for batches in (clips.fit, clips.held_out))
            for name, clips in sources.items()
        }
    return {
        kind: {
            one: {
                other: pooled_r2(
                    probe_episodes(features[one][0][kind], features[other][1][kind], _targets(fitted, scored))
                )
                for other, scored in sources.items()
            }
            for one, fitted in sources.items()
        }
        for kind in _INPUTS
    }


def _inputs(clips: ClipFeatures, model: LatentActionQuantizer) -> dict[str, Float[Tensor, "b _"]]:
    codes = code_features(clips.latents, model.spec.codebook_size)
    return dict(zip(_INPUTS, (codes, clips.latents.require_vectors().flatten(1), clips.pixels), strict=True))


def _targets(fitted: QualityClips, scored: QualityClips) -> Chunks:
    """Action chunks of the fitting clips of one source and the held-out clips of another, standardized by the latter's
    training actions."""
    assert fitted.fit_actions is not None
    assert scored.fit_actions is not None
    assert scored.held_out_actions is not None
    mean, scale, _ = mean_and_scale(scored.fit_actions)
    fit, test = (((actions - mean) / scale).flatten(1) for actions in (fitted.fit_actions, scored.held_out_actions))
    return Chunks(fit, test, scored.episode, scored.fit_actions.shape[-1])


def transferred_codes(laq: LoadedLAQ, names: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """`[share, chance]` of the codes of one source that are found again after they were decoded from frames of another
    one, from the card of the training; `names` are those of its sources in order."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for pair in laq.extra["across_sources"]:
        one, other = (names[int(pair[key].split(":")[0]) - 1] for key in ("codes_of", "frames_of"))
        found[one][other] = [pair["transfer_consistency"], pair["transfer_chance"]]
    return found


def _mean(values: Sequence[Any]) -> Any:
    """Mean of numbers, of each entry of dictionaries, or of each item of lists; all of one shape."""
    first = values[0]
    if isinstance(first, dict):
        return {key: _mean([value[key] for value in values]) for key in first}
    if isinstance(first, list):
        return [_mean(items) for items in zip(*values, strict=True)]
    return None if None in values else mean(values)


def _table(result: Mapping[str, Matrix]) -> str:
    names = list(result["codes"])

    def cell(one: str, other: str) -> str:
        values = (result[kind][one][other] for kind in _INPUTS)
        return " / ".join("–" if value is None else f"{value:.3f}" for value in values)

    rows = [[one, *(cell(one, other) for other in names)] for one in names]
    return table([f"R² {' / '.join(_INPUTS)}, fitted on", *(f"scored on {name}" for name in names)], rows)
