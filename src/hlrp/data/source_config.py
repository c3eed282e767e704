"""Which recordings stage 1 trains on, as named on a command line or in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from hlrp.data.clips import TrainingSource, choose_labelled, clip_starts, log_cuts, split_episodes
from hlrp.data.sources import ClipSource, open_lerobot_source
from hlrp.data.video_folder import open_video_source
from hlrp.latents import LatentSpec, log_offset

DEFAULT_REPO_ID = "local/hlrp_demos"


@dataclass(kw_only=True)
class SourceConfig:
    """A LeRobotDataset, or a folder of plain videos."""

    dataset_repo_id: str | None = None
    """Repo id of a dataset; default: local/hlrp_demos."""
    dataset_root: str | None = None
    """Its folder; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    cameras: list[str] = field(default_factory=list)
    """Dataset keys of the cameras to watch together; may be left out where there is only one."""
    video_dir: str | None = None
    """Folder of video files, instead of a dataset."""
    video_fps: float | None = None
    """Frames per second at which to read them; default: the highest rate among them."""
    skip_bad_videos: bool = False
    """Leave out video files that cannot be read, with a warning, instead of refusing the folder."""
    find_scene_cuts: bool = True
    """Leave out clips that lie across a scene cut of a film; decodes every film once beforehand."""
    weight: float | None = None
    """Share of the training clips, relative to other sources; default: as its number of clips."""

    def __post_init__(self) -> None:
        named = [name for name in ("dataset_repo_id", "dataset_root", "cameras") if getattr(self, name)]
        if self.video_dir is not None and named:
            raise ValueError(f"video_dir and {named[0]} exclude each other: plain videos are no dataset")
        if self.video_dir is None and self.video_fps is not None:
            raise ValueError("video_fps goes with video_dir; a dataset has its own frame rate")
        if self.video_dir is None and self.skip_bad_videos:
            raise ValueError("skip_bad_videos goes with video_dir; no video of a dataset may be left out")


@dataclass(frozen=True, kw_only=True)
class LabelledShare:
    """Few known actions: which training episodes may show theirs."""

    fraction: float = 0.0
    """Share of the training episodes of every source with actions, drawn by the seed."""
    episodes: Sequence[int] = ()
    """Or these episodes, of the only source."""


def open_source(config: SourceConfig, *, image_size: tuple[int, int], cache_gib: float) -> ClipSource:
    """Open what `config` names."""
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
        log_offset(spec, source.fps, of=source.name)
        log_cuts(source, spec.frame_deltas(source.fps))
        train, test = split_episodes(len(source.bounds), held_out=held_out, seed=seed)
        clip_starts(source, spec.frame_deltas(source.fps), test)  # says now, not after the training, that none has room
        known = torch.tensor(labelled.episodes, dtype=torch.int64)
        if source.actions is not None and not labelled.episodes:
            known = choose_labelled(train, fraction=labelled.fraction, seed=seed)
        parts.append(TrainingSource(source=source, episodes=train, weight=config.weight, labelled=known))
    if labelled.fraction and not any(len(part.labelled) for part in parts):
        raise ValueError(f"labelled_fraction={labelled.fraction} asks for actions, but no source has any")
    return parts
