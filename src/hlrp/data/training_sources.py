"""Open the data sources of stage 1, and split their episodes into training and held-out episodes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from hlrp.data.clip_actions import episodes_with_actions
from hlrp.data.clip_starts import clip_is_valid, has_clip, log_cuts
from hlrp.data.dataset import dataset_name
from hlrp.data.episode_split import TrainingSource, choose_labelled, chosen_episodes, split_episodes
from hlrp.data.recording_identity import UsedEpisodes, require_unseen
from hlrp.data.source_config import LabelledShare, SourceConfig
from hlrp.data.sources import ClipSource, open_lerobot_source
from hlrp.data.video_folder import open_video_source
from hlrp.latents import LatentSpec, log_offset

logger = logging.getLogger(__name__)


def open_source(config: SourceConfig, *, image_size: tuple[int, int], cache_gib: float) -> ClipSource:
    """Open the LeRobotDataset or the folder of videos that `config` names."""
    if config.video_dir is not None:
        return open_video_source(
            config.video_dir,
            image_size=image_size,
            cache_gib=cache_gib,
            fps=config.video_fps,
            skip_bad_videos=config.skip_bad_videos,
            find_scene_cuts=config.find_scene_cuts,
        )
    return open_lerobot_source(
        dataset_name(config.dataset_repo_id, config.dataset_root),
        config.dataset_root,
        cameras=config.cameras,
        image_size=image_size,
        cache_gib=cache_gib,
        tolerance_s=config.tolerance_s,
    )


def open_training_sources(
    configs: Sequence[SourceConfig],
    spec: LatentSpec,
    *,
    image_size: tuple[int, int],
    cache_gib: float,
    held_out: float,
    labelled: LabelledShare,
    seed: int,
) -> list[TrainingSource]:
    """Open every source, split its episodes, and choose the training episodes whose actions are used.

    Args:
        configs: The sources; each gets an equal share of `cache_gib`.
        spec: Geometry of clips, which gives the smallest length of a usable episode.
        image_size: Height and width of frames.
        cache_gib: Keep frames in memory up to this size, in GiB.
        held_out: Share of the usable episodes of each source to hold out, in (0, 1).
        labelled: Training episodes whose actions are used.
        seed: Seed of the split and of the choice of labelled episodes.

    Raises:
        ValueError: If no episode of a source is long enough for a clip, or actions are asked for but none exist.
    """
    if labelled.episodes and (labelled.fraction or len(configs) > 1):
        raise ValueError(
            "labelled_episodes names episodes of a single source; with several, or for a share, use labelled_fraction"
        )
    parts: list[TrainingSource] = []
    for config in configs:
        source = open_source(config, image_size=image_size, cache_gib=cache_gib / len(configs))
        log_offset(spec, source.fps, of=source.name)
        log_cuts(source, spec.frame_deltas(source.fps))
        chosen = chosen_episodes(len(source.bounds), config.episodes, name=source.name)
        usable = has_clip(source, spec.frame_deltas(source.fps))[chosen]
        split = split_episodes(len(chosen), held_out=held_out, seed=seed, usable=usable)
        train, test = (chosen[part] for part in split)
        clip_is_valid(source.bounds, spec.frame_deltas(source.fps))  # raises early if all episodes are too short
        if not len(test):
            logger.warning(
                f"{source.name} has one episode that is long enough for a clip: it is trained on, none is held out"
            )
        with_actions = torch.tensor(labelled.episodes, dtype=torch.int64)
        if source.actions is not None and not labelled.episodes:
            with_actions = choose_labelled(episodes_with_actions(source, train), fraction=labelled.fraction, seed=seed)
        parts.append(
            TrainingSource(
                source=source,
                episodes=train,
                weight=config.weight,
                labelled=with_actions,
                chosen=None if config.episodes is None else chosen,
            )
        )
    if labelled.fraction and not any(len(part.labelled) for part in parts):
        raise ValueError(f"labelled_fraction={labelled.fraction} asks for actions, but no source has any")
    require_unseen([UsedEpisodes(identity=p.source.identity(), train=p.episodes, held_out=p.held_out) for p in parts])
    return parts
