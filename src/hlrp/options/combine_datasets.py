"""Options of `hlrp-combine-datasets`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hlrp.data.source_config import DEFAULT_TOLERANCE_S, AddedSourceConfig, require_episode_numbers
from hlrp.runtime.checks import require_cameras, require_numbers


@dataclass
class CombineDatasetsConfig:
    """Add episodes without known actions, from other LeRobotDatasets or plain videos, to a dataset with actions.

    The result is one LeRobotDataset with the cameras, frame rate, states and actions of the first dataset. Its column
    `is_action_valid` says which frames have a known action. Other frames hold the mean action and state.
    """

    output_dir: Path
    """Folder of the new dataset. Required; the folder must not exist."""
    repo_id: str = "local/combined"
    """Repo id (name) of the new dataset."""
    dataset_repo_id: str | None = None
    """Repo id of the first dataset, whose actions are known; default: local/hlrp_demos."""
    dataset_root: str | None = None
    """Folder of the first dataset; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    episodes: list[int] | None = None
    """Numbers of the episodes of the first dataset to take; default: all."""
    labelled_episodes: list[int] = field(default_factory=list)
    """Numbers of those episodes of the first dataset whose actions are known; default: all. Actions that are NaN or
    infinite are never known."""
    cameras: list[str] = field(default_factory=list)
    """Dataset keys of the cameras of the new dataset; default: the cameras of the first dataset that all sources
    have."""
    tolerance_s: float = DEFAULT_TOLERANCE_S
    """Largest accepted difference between a frame's time stamp and the frame rate of the first dataset, in seconds.
    Raise it for datasets with imprecise time stamps."""
    sources: list[AddedSourceConfig] = field(default_factory=list)
    """What is added, one or several of: datasets, such as {dataset_root: other, instruction: Open the door}, and
    folders of video files, such as {video_dir: films, instruction: Open the door}. Each can also have camera, and
    datasets have episodes, tolerance_s, keep and camera_map, folders instructions, skip_bad_videos and
    find_scene_cuts."""

    def __post_init__(self) -> None:
        require_numbers(self, "tolerance_s", above=0)
        require_episode_numbers(self.episodes)
        require_numbers(self, "labelled_episodes", at_least=0)
        if not self.sources:
            raise ValueError("sources names nothing to add; name datasets or folders of videos")
        lost = sorted(set(self.labelled_episodes) - set(self.episodes or self.labelled_episodes))
        if lost:
            raise ValueError(f"labelled_episodes has {lost}, which are not among episodes")
        require_cameras("cameras", self.cameras)
