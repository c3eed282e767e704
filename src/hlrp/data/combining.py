"""Add episodes of films and of other datasets to a LeRobotDataset with actions, as one new LeRobotDataset."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION, OBS_STR

from hlrp.data.added_episodes import (
    DatasetEpisodes,
    EpisodeSource,
    FilmEpisodes,
    Target,
    film_instructions,
    stored_size,
)
from hlrp.data.combined_writer import CombinedWriter
from hlrp.data.dataset import (
    ACTION_KNOWN,
    ACTION_VALID,
    dataset_name,
    episode_bounds,
    open_dataset,
    value_names,
)
from hlrp.data.episode_split import chosen_episodes
from hlrp.data.episode_table import require_sound_metadata
from hlrp.data.film_files import video_names
from hlrp.data.source_config import AddedSourceConfig
from hlrp.data.video_folder import open_video_source
from hlrp.runtime.progress import progress
from hlrp.storage.files import new_directory

logger = logging.getLogger(__name__)

_FILM_CAMERA = "its pictures"
"""Placeholder for the dataset key of a film's only camera."""
_NUMBERING = {"timestamp", "frame_index", "episode_index", "index", "task_index"}


@dataclass(frozen=True)
class SourceCount:
    """What a source contributes to the new dataset."""

    name: str
    episodes: int
    frames: int
    known: int
    """Number of frames with a known action."""
    known_episodes: tuple[int, ...]
    """Numbers, in the new dataset, of the episodes in which the action of every frame is known."""
    folder: Path | None = None
    """Folder of a dataset; None for films."""


Beside = Callable[[LeRobotDatasetMetadata, Sequence[SourceCount]], Mapping[str, str]]
"""Function that makes further files of the new dataset, by path within it, from its metadata and its sources."""


def combine(
    first: LeRobotDataset,
    added: Sequence[AddedSourceConfig],
    root: Path,
    *,
    repo_id: str,
    episodes: Sequence[int] | None = None,
    labelled_episodes: Sequence[int] = (),
    cameras: Sequence[str] = (),
    beside: Beside | None = None,
) -> list[SourceCount]:
    """Write the episodes of `first`, followed by those of the `added` sources, as a new dataset to the folder `root`.

    Args:
        first: Dataset with actions, whose cameras, frame rate and vectors of numbers the new dataset has.
        added: Sources whose actions and states are not known, unless they are kept.
        root: Folder of the new dataset; must not exist.
        repo_id: Name of the new dataset.
        episodes: Numbers of the episodes of `first` to take; None for all.
        labelled_episodes: Numbers of the episodes of `first` whose actions are known; empty for all.
        cameras: Cameras of the new dataset; empty for the cameras of `first` that all sources have.
        beside: Makes the texts of further files; None for none.

    Returns:
        What each source contributes, in the order of the episodes.

    Raises:
        FileExistsError: If `root` exists.
        FileNotFoundError: If a source does not exist.
        ValueError: If a source does not fit, or no action of `first` is known.
    """
    opened = [_open_added(config) for config in added]
    columns = _vector_columns(first.meta)
    for config, dataset in zip(added, opened, strict=True):
        if dataset is not None:
            _check_names(config, dataset.meta, first.meta)
    places = [_match_cameras(config, dataset, first.meta) for config, dataset in zip(added, opened, strict=True)]
    target = _target(first, _chosen_cameras(first.meta, added, places, cameras), episodes)
    own = DatasetEpisodes(
        first,
        target=target,
        cameras={key: key for key in target.cameras},
        columns=list(columns),
        episodes=episodes,
        labelled_episodes=labelled_episodes,
    )
    fill = {name: own.mean(name) for name in columns}
    kept = [dataset for config, dataset in zip(added, opened, strict=True) if ACTION in config.keep]
    with_actions = [dataset.meta for dataset in (first, *kept) if dataset is not None]
    with new_directory(root, create=False) as new:
        sources: list[EpisodeSource] = [own]
        for config, dataset, place in zip(added, opened, places, strict=True):
            sources.append(_added_episodes(config, dataset, place, target, columns))
        with CombinedWriter(
            new,
            repo_id,
            first=first.meta,
            features={key: first.meta.features[key] for key in [*target.cameras, *columns]},
            fill=fill,
            picture_statistics=frozenset.intersection(*(source.picture_statistics for source in sources)),
            marks_recorded=any(ACTION_KNOWN in meta.features for meta in with_actions),
        ) as writer:
            counts = []
            for source in sources:
                counts.append(_write(source, writer, first_number=sum(count.episodes for count in counts)))
        _require_sound(LeRobotDatasetMetadata(repo_id, root=new))
        for name, text in ({} if beside is None else beside(writer.meta, counts)).items():
            (new / name).write_text(text, encoding="utf-8")
    _explain_fill(columns, counts)
    return counts


def _open_added(config: AddedSourceConfig) -> LeRobotDataset | None:
    """Open the dataset of a source; None for films."""
    if config.video_dir is not None:
        return None
    return open_dataset(_name(config), config.dataset_root, tolerance_s=config.tolerance_s)


def _name(config: AddedSourceConfig) -> str:
    return config.video_dir or dataset_name(config.dataset_repo_id, config.dataset_root)


def _colour_cameras(meta: LeRobotDatasetMetadata) -> list[str]:
    return [key for key in meta.camera_keys if key not in meta.depth_keys]


def _vector_columns(meta: LeRobotDatasetMetadata) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the columns of the first dataset that the new one has: the action, and observed vectors.

    Raises:
        ValueError: If the first dataset has no actions.
    """
    if ACTION not in meta.features:
        raise ValueError(f"{meta.repo_id} has no actions; the first dataset is the one with actions")
    vectors: dict[str, tuple[int, ...]] = {}
    left_out: list[str] = []
    for name, feature in meta.features.items():
        is_vector = feature["dtype"].startswith(("float", "int", "uint", "bool")) and len(feature["shape"]) == 1
        if name in _NUMBERING or name in meta.camera_keys or name in (ACTION_VALID, ACTION_KNOWN):
            continue
        if is_vector and (name == ACTION or name.startswith(OBS_STR)):
            vectors[name] = tuple(feature["shape"])
        else:
            left_out.append(name)
    if ACTION not in vectors:
        raise ValueError(f"{ACTION!r} of {meta.repo_id} is not a vector of numbers; convert it")
    if left_out:
        logger.info(f"columns of {meta.repo_id} that other sources cannot have are left out: {', '.join(left_out)}")
    return vectors


def _check_names(config: AddedSourceConfig, theirs: LeRobotDatasetMetadata, first: LeRobotDatasetMetadata) -> None:
    """Refuse kept columns whose values stand in another order than in the first dataset, and warn of other names.

    Raises:
        ValueError: If the names of the values of a column are the same, in another order.
    """
    for column in config.keep:
        mine, found = (value_names(meta.features.get(column, {})) for meta in (first, theirs))
        if mine is None or found is None or mine == found:
            continue
        both = f"{column!r} of {theirs.repo_id} holds {', '.join(found)}, that of {first.repo_id} {', '.join(mine)}"
        if sorted(mine) == sorted(found):
            raise ValueError(f"{both}: values in another order cannot be kept; reorder them, or leave it out of keep")
        if len(mine) == len(found):
            logger.warning(f"{both}: values are kept as if they meant the same; if they do not, leave it out of keep")


def _match_cameras(
    config: AddedSourceConfig, dataset: LeRobotDataset | None, first: LeRobotDatasetMetadata
) -> dict[str, str]:
    """For each camera of the first dataset that a source has: the source's key of this camera.

    Raises:
        ValueError: If the options name a camera that does not exist, or do not say which camera is which.
    """
    ours = _colour_cameras(first)
    theirs = [_FILM_CAMERA] if dataset is None else _colour_cameras(dataset.meta)
    lost = [name for name in (config.camera, *config.camera_map.values()) if name is not None and name not in ours]
    lost += [name for name in config.camera_map if name not in theirs]
    if lost:
        raise ValueError(
            f"there is no camera {lost[0]!r}: {first.repo_id} has {', '.join(ours)}, and {_name(config)} "
            f"{', '.join(theirs)}"
        )
    if config.camera is not None and len(theirs) > 1:
        raise ValueError(f"{_name(config)} has {len(theirs)} cameras: map them with camera_map instead of camera")
    if config.camera is not None:
        return {config.camera: theirs[0]}
    same = {name: name for name in theirs if name in ours and name not in config.camera_map}
    found = same | {mine: own for own, mine in config.camera_map.items()}
    if not found and len(theirs) == len(ours) == 1:
        return {ours[0]: theirs[0]}
    if not found:
        raise ValueError(
            f"it is not known which camera of {first.repo_id} {_name(config)} shows: name one of {', '.join(ours)} as "
            "the camera of this source, or map several with camera_map"
        )
    return found


def _chosen_cameras(
    first: LeRobotDatasetMetadata,
    added: Sequence[AddedSourceConfig],
    places: Sequence[Mapping[str, str]],
    cameras: Sequence[str],
) -> list[str]:
    """Cameras of the new dataset: `cameras` if given, else those of the first dataset that all sources have.

    Raises:
        ValueError: If a source lacks one of `cameras`, or no camera is common to all.
    """
    ours = _colour_cameras(first)
    for name in cameras:
        lacking = [_name(config) for config, place in zip(added, places, strict=True) if name not in place]
        if name not in ours or lacking:
            raise ValueError(
                f"{lacking[0] if name in ours else first.repo_id} has no camera {name!r}; leave it out of cameras"
            )
    chosen = list(cameras) or [name for name in ours if all(name in place for place in places)]
    if not chosen:
        raise ValueError(f"no camera of {first.repo_id} ({', '.join(ours)}) is in all sources; combine fewer sources")
    left_out = [name for name in ours if name not in chosen]
    if left_out:
        logger.info(f"cameras of {first.repo_id} that the new dataset does not have: {', '.join(left_out)}")
    return chosen


def _target(first: LeRobotDataset, cameras: Sequence[str], episodes: Sequence[int] | None) -> Target:
    number = int(chosen_episodes(first.meta.total_episodes, episodes, name=first.repo_id)[0])
    frame = int(episode_bounds(first.meta)[number, 0])
    return Target(
        fps=float(first.fps),
        cameras={key: stored_size(first, key, frame) for key in cameras},
        video_cameras=frozenset(first.meta.video_keys),
    )


def _added_episodes(
    config: AddedSourceConfig,
    dataset: LeRobotDataset | None,
    cameras: Mapping[str, str],
    target: Target,
    columns: Mapping[str, tuple[int, ...]],
) -> EpisodeSource:
    if dataset is None:
        return _film_episodes(config, next(iter(cameras)), target)
    for name in config.keep:
        theirs = dataset.meta.features.get(name, {"shape": ()})["shape"]
        if columns.get(name) != tuple(theirs):
            raise ValueError(
                f"column {name!r} of {dataset.repo_id} cannot be kept: its shape is {tuple(theirs) or 'unknown'}, that "
                f"in the first dataset {columns.get(name, 'unknown')}"
            )
    return DatasetEpisodes(
        dataset,
        target=target,
        cameras=cameras,
        columns=config.keep,
        episodes=config.episodes,
        instruction=config.instruction,
    )


def _film_episodes(config: AddedSourceConfig, camera: str, target: Target) -> FilmEpisodes:
    assert config.video_dir is not None, "the caller has checked it"
    source = open_video_source(
        config.video_dir,
        image_size=target.cameras[camera],
        crop=True,
        cache_gib=0,
        fps=target.fps,
        skip_bad_videos=config.skip_bad_videos,
        find_scene_cuts=True,  # also if films are not split: this pass finds all films that cannot be decoded
    )
    instructions = film_instructions(
        source.episode_names,
        instruction=config.instruction,
        file=config.instructions,
        skipped=video_names(config.video_dir) if config.skip_bad_videos else (),
    )
    return FilmEpisodes(source, camera=camera, instructions=instructions, split=config.find_scene_cuts)


def _write(source: EpisodeSource, writer: CombinedWriter, *, first_number: int) -> SourceCount:
    frames = known = 0
    known_episodes: list[int] = []
    for number, episode in enumerate(progress(source, f"adding {source.name}", total=len(source)), first_number):
        writer.add(episode)
        frames += len(episode)
        known += int(episode.known.sum())
        if episode.known.all():
            known_episodes.append(number)
    return SourceCount(source.name, len(source), frames, known, tuple(known_episodes), source.folder)


def _require_sound(meta: LeRobotDatasetMetadata) -> None:
    """Raise if the new dataset could not be opened, before it gets its place.

    Raises:
        RuntimeError: If its metadata is wrong, which is a fault of this module: the sources were checked when opened.
    """
    try:
        require_sound_metadata(meta, episode_bounds(meta).numpy(), whole=True)
    except (ValueError, FileNotFoundError) as error:
        raise RuntimeError(f"the sources could not be combined to a dataset that can be opened: {error}") from error


def _explain_fill(columns: Mapping[str, object], counts: Sequence[SourceCount]) -> None:
    unknown = sum(count.frames - count.known for count in counts)
    logger.info(
        f"{unknown} frames have no known action: {ACTION_VALID!r} is false there, and {ACTION!r} holds the mean of the "
        f"known actions. Where a source has no {', '.join(name for name in columns if name != ACTION) or 'state'}, the "
        "mean of the first dataset stands"
    )
