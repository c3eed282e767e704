"""Data options of stages 1 and 2, as on the command line. The module imports no torch, so that `--help` is fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hlrp.runtime.checks import changed_options, require_cameras, require_number, require_numbers

DEFAULT_REPO_ID = "local/hlrp_demos"
"""Repo id of the dataset that `hlrp-collect-demos` records by default."""
DEFAULT_TOLERANCE_S = 1e-4
"""Largest accepted deviation of time stamps from the frame rate, in seconds; also LeRobot's default."""


@dataclass(kw_only=True)
class SourceConfig:
    """A data source of stage 1: a LeRobotDataset, or a folder of video files."""

    dataset_repo_id: str | None = None
    """Repo id of a LeRobotDataset; default: local/hlrp_demos."""
    dataset_root: str | None = None
    """Folder of the dataset; default: $HF_LEROBOT_HOME/<repo_id> if it exists, else a download from the hub."""
    cameras: list[str] = field(default_factory=list)
    """Dataset keys of the cameras that the quantizer takes together; optional if the dataset has only one camera."""
    video_dir: str | None = None
    """Folder of video files to use instead of a dataset."""
    video_fps: float | None = None
    """Frame rate at which video files are sampled, in Hz; default: the highest frame rate of a file in the folder."""
    skip_bad_videos: bool = False
    """Skip video files that cannot be read, with a warning, instead of stopping with an error."""
    find_scene_cuts: bool = True
    """Leave out clips that contain a scene cut of a video file; this decodes every file once before training."""
    episodes: list[int] | None = None
    """Numbers of the episodes to use for training and validation; video files are numbered by path,
    without those that are skipped. Default: all."""
    weight: float | None = None
    """Weight of this source in the mix of training clips, relative to other sources; default: its number of clips."""
    tolerance_s: float = DEFAULT_TOLERANCE_S
    """Largest deviation of a dataset's time stamps from its frame rate, in seconds; increase it for datasets with
    inexact time stamps."""

    def __post_init__(self) -> None:
        require_numbers(self, "tolerance_s", above=0)
        named = [name for name in ("dataset_repo_id", "dataset_root", "cameras") if getattr(self, name)]
        if self.video_dir is not None and named:
            raise ValueError(f"video_dir and {named[0]} exclude each other: plain videos are no dataset")
        require_cameras("cameras", self.cameras)
        require_episode_numbers(self.episodes)
        require_fitting_options(self)
        require_numbers(self, "video_fps", "weight", above=0)


@dataclass(kw_only=True)
class ObservationConfig:
    """A data source of stage 2: a LeRobotDataset with instructions. Actions are not needed."""

    dataset_repo_id: str | None = None
    """Repo id of the dataset; default: local/hlrp_demos."""
    dataset_root: str | None = None
    """Folder of the dataset; default: $HF_LEROBOT_HOME/<repo_id> if it exists, else a download from the hub."""
    labels_path: str | None = None
    """Folder of the latent labels; default: `latents` in the folder of the dataset, else label columns in the data."""
    cameras: list[str] = field(default_factory=list)
    """Dataset keys of the cameras whose images the model takes; default: the camera from which labels were made."""
    episodes: list[int] | None = None
    """Numbers of the episodes to use for training and validation; default: all."""
    weight: float | None = None
    """Weight of this dataset in the mix of training samples, relative to other datasets; default: each frame once per
    epoch."""
    tolerance_s: float = DEFAULT_TOLERANCE_S
    """Largest deviation of the dataset's time stamps from its frame rate, in seconds; increase it for datasets with
    inexact time stamps."""

    def __post_init__(self) -> None:
        require_numbers(self, "weight", "tolerance_s", above=0)
        require_cameras("cameras", self.cameras)
        require_episode_numbers(self.episodes)


@dataclass(kw_only=True)
class AddedSourceConfig:
    """Episodes that `hlrp-combine-datasets` adds to a dataset: of a LeRobotDataset, or of a folder of video files."""

    dataset_repo_id: str | None = None
    """Repo id of a LeRobotDataset."""
    dataset_root: str | None = None
    """Folder of the dataset; default: $HF_LEROBOT_HOME/<repo_id> if it exists, else a download from the hub."""
    episodes: list[int] | None = None
    """Numbers of the dataset's episodes to add; default: all."""
    tolerance_s: float = DEFAULT_TOLERANCE_S
    """Largest deviation of the dataset's time stamps from its frame rate, in seconds; increase it for datasets with
    inexact time stamps."""
    keep: list[str] = field(default_factory=list)
    """Columns whose values are kept because they mean the same as in the first dataset, such as [observation.state] or
    [observation.state, action] of the same robot. Default: none, so that states and actions are unknown."""
    video_dir: str | None = None
    """Folder of video files, instead of a dataset; every scene of a file becomes an episode."""
    skip_bad_videos: bool = False
    """Skip video files that cannot be read, with a warning, instead of stopping with an error."""
    find_scene_cuts: bool = True
    """Split video files at scene cuts; otherwise every file is one episode."""
    instruction: str | None = None
    """Instruction of all episodes. Default: the tasks of the dataset; a folder of videos has none."""
    instructions: str | None = None
    """File with the instruction of each video file: JSON such as {"film.mp4": "Open the door"}, or CSV with a file and
    its instruction in each row. Files are named by their path within video_dir."""
    camera: str | None = None
    """Camera of the first dataset whose place is taken by the videos, or by the only camera of this dataset. Not needed
    if the first dataset has one camera, or if the two cameras have the same name."""
    camera_map: dict[str, str] = field(default_factory=dict)
    """Cameras of this dataset with another name in the first dataset, such as {observation.images.front:
    observation.images.top}. Cameras with the same name need no entry."""

    def __post_init__(self) -> None:
        require_numbers(self, "tolerance_s", above=0)
        require_episode_numbers(self.episodes)
        is_dataset = self.dataset_repo_id is not None or self.dataset_root is not None
        if is_dataset == (self.video_dir is not None):
            raise ValueError("each of sources names one dataset (dataset_root or dataset_repo_id) or one video_dir")
        if self.camera is not None and self.camera_map:
            raise ValueError("name the cameras of a source with camera or with camera_map, not both")
        if self.instruction is not None and not self.instruction.strip():
            raise ValueError("instruction is empty; say in words what is done in the episodes")
        of_films, of_datasets = ("skip_bad_videos", "instructions"), ("episodes", "keep", "camera_map")
        for name in changed_options(self, *(of_films if is_dataset else of_datasets)):
            raise ValueError(f"{name} does not go with {'a dataset' if is_dataset else 'video_dir'}")
        require_fitting_options(self)
        if len(set(self.camera_map.values())) < len(self.camera_map):
            raise ValueError(
                f"camera_map maps two cameras to the same one, got {self.camera_map}; leave out one of them"
            )
        if not is_dataset and self.instruction is None and self.instructions is None:
            raise ValueError(f"the videos in {self.video_dir} need an instruction: name instruction or instructions")


@dataclass(frozen=True, kw_only=True)
class LabelledShare:
    """Choice of the training episodes whose actions the quantizer may learn from."""

    fraction: float = 0.0
    """Share of the training episodes of every source with actions, chosen at random by the seed; in [0, 1]."""
    episodes: Sequence[int] = ()
    """Episode numbers, instead of `fraction`; only if there is a single source."""

    def __post_init__(self) -> None:
        require_number("labelled_fraction", self.fraction, at_least=0, at_most=1)
        require_number("labelled_episodes", list(self.episodes), at_least=0)


@dataclass(frozen=True, kw_only=True)
class ClipAugmentation:
    """Augmentation of clips in time, so that the next frame cannot be guessed from the first frame without codes.

    `reversed_clips` and `stretched_offsets` in `hlrp.data.clip_draws` apply these options.
    """

    reverse_probability: float = 0.5
    """Probability that a clip is played backwards, so that the codes must describe the direction of motion."""
    reverse_until: float = 0.7
    """Fraction of the training after which no clip is played backwards, so that codes adapt to forward motion; once
    codes are fitted (quantizer kmeans), clips are played backwards again until the end, for the decoder."""
    max_stretch: float = 0.0
    """Largest random frame offset as a multiple of the nominal offset, sampled from 0 up; 0: always the nominal one."""

    def __post_init__(self) -> None:
        require_numbers(self, "reverse_until", "reverse_probability", at_least=0, at_most=1)
        require_numbers(self, "max_stretch", at_least=0)


@dataclass(frozen=True, kw_only=True)
class IdleClips:
    """Sampling of idle clips, in which almost nothing moves. Teleoperated data has many, and codes learn little from
    them."""

    weight: float = 1.0
    """Sampling weight of an idle clip relative to other clips; with 1, motion is not measured before training."""
    share: float = 0.25
    """Share of the clips of a source that count as idle: those with the least motion. In (0, 1)."""

    def __post_init__(self) -> None:
        require_number("idle_weight", self.weight, above=0)
        require_number("idle_share", self.share, above=0, below=1)


_OF_VIDEOS = {
    "video_fps": "a dataset has its own frame rate",
    "skip_bad_videos": "no video of a dataset may be left out",
    "find_scene_cuts": "a dataset is not searched for scene cuts",
}
"""Options that have an effect on plain videos alone, and why they have none on a dataset."""


def require_fitting_options(config: Any) -> None:
    """Raise if an option was given that has an effect on plain videos alone, or on datasets alone, for the other kind.

    Args:
        config: Options of one source, with `video_dir`, `tolerance_s` and any of the options in `_OF_VIDEOS`.

    Raises:
        ValueError: If such an option does not have its default.
    """
    if config.video_dir is not None:
        if config.tolerance_s != DEFAULT_TOLERANCE_S:
            raise ValueError("tolerance_s goes with a dataset; plain videos are read by their own time stamps")
        return
    for name, reason in _OF_VIDEOS.items():
        if hasattr(config, name) and changed_options(config, name):
            raise ValueError(f"{name} goes with video_dir; {reason}")


def require_episode_numbers(numbers: Sequence[int] | None) -> None:
    """Check a choice of episode numbers before any dataset is opened; None, for all episodes, passes.

    Raises:
        ValueError: If the choice is empty, or a number is negative or occurs twice.
    """
    if numbers is None:
        return
    if not numbers:
        raise ValueError("episodes is empty, which would leave nothing to train on; leave it out to use all episodes")
    twice = sorted({number for number in numbers if list(numbers).count(number) > 1})
    if twice or min(numbers) < 0:
        raise ValueError(f"episodes must be different numbers from 0 on, got {list(numbers)}")
