"""Open the recordings that stage 1 trains on, and divide their episodes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hlrp.data.clips import TrainingSource, choose_labelled, clip_starts, split_episodes
from hlrp.data.source_config import DEFAULT_REPO_ID, LabelledShare, SourceConfig
from hlrp.data.sources import ClipSource, open_lerobot_source
from hlrp.data.video_folder import open_video_source
from hlrp.latents import LatentSpec


def open_source(config: SourceConfig, *, image_size: tuple[int, int], cache_gib: float) -> ClipSource:
    """Open what `config` names."""
    if config.video_dir is not None:
        return open_video_source(config.video_dir, image_size=image_size, cache_gib=cache_gib, fps=config.video_fps)
    return open_lerobot_source(
        config.dataset_repo_id or DEFAULT_REPO_ID,
        config.dataset_root,
        cameras=config.cameras,
        image_size=image_size,
        cache_gib=cache_gib,
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
    """Open every source, split its episodes, and choose those with known actions.

    Args:
        configs: The sources; all share `cache_gib` equally.
        spec: Clips that training and held-out episodes must have room for.
        image_size: Height and width of frames.
        cache_gib: Keep frames in memory up to this size.
        held_out: Share of the episodes of each source to hold out.
        labelled: Which actions may be seen.
        seed: Of the split and the choice.

    Raises:
        ValueError: If training or held-out episodes of a source have no clip, or there is no action to see.
    """
    if labelled.episodes and (labelled.fraction or len(configs) > 1):
        raise ValueError(
            "labelled_episodes names episodes of a single source; with several, or for a share, use labelled_fraction"
        )
    parts: list[TrainingSource] = []
    for config in configs:
        source = open_source(config, image_size=image_size, cache_gib=cache_gib / len(configs))
        train, test = split_episodes(len(source.bounds), held_out=held_out, seed=seed)
        clip_starts(source, spec.frame_deltas(source.fps), test)  # says now, not after the training, that none has room
        known = torch.tensor(labelled.episodes, dtype=torch.int64)
        if source.actions is not None and not labelled.episodes:
            known = choose_labelled(train, fraction=labelled.fraction, seed=seed)
        parts.append(TrainingSource(source=source, episodes=train, weight=config.weight, labelled=known))
    if labelled.fraction and not any(len(part.labelled) for part in parts):
        raise ValueError(f"labelled_fraction={labelled.fraction} asks for actions, but no source has any")
    return parts
