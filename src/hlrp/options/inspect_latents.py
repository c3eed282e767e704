"""Options of `hlrp-inspect-latents`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hlrp.data.source_config import DEFAULT_TOLERANCE_S, SourceConfig
from hlrp.laq.objective.config import LabellerConfig
from hlrp.runtime.checks import changed_options, require_numbers, require_seed


@dataclass
class InspectConfig:
    """Measure a LAQ on the held-out episodes of its training dataset, or on another dataset."""

    laq_path: str = "outputs/laq"
    """Folder of the LAQ checkpoint, or repo id of a LAQ on the hub."""
    dataset_repo_id: str | None = None
    """Repo id of the dataset; default: local/hlrp_demos."""
    dataset_root: str | None = None
    """Folder of the dataset; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    cameras: list[str] = field(default_factory=list)
    """Dataset keys of the cameras; default: the cameras the LAQ was trained on."""
    video_dir: str | None = None
    """Folder of plain videos, instead of a dataset. Metrics of actions are then left out."""
    video_fps: float | None = None
    """Frames per second at which plain videos are read; default: the highest frame rate among the videos."""
    skip_bad_videos: bool = False
    """Leave out video files that cannot be read, with a warning, instead of refusing the folder."""
    find_scene_cuts: bool = True
    """Leave out clips that contain a scene cut of a plain video; each video is decoded once beforehand to find cuts."""
    episodes: list[int] | None = None
    """Numbers of the episodes to use, for fitting probes and measuring together; plain videos are numbered from 0 in
    the order of their paths, without those left out. Default: all."""
    tolerance_s: float = DEFAULT_TOLERANCE_S
    """Largest accepted difference between a frame's time stamp and the dataset's frame rate, in seconds. Raise it for
    datasets with imprecise time stamps."""
    output_dir: str | None = None
    """Folder for metrics.json and report.html; must not exist. Default: the metrics are only printed."""
    baselines: bool = False
    """Also measure three baselines with codes of the same size: an untrained LAQ, codes of an inverse-dynamics model,
    and clusters of the true actions. They are measured on the held-out episodes whose actions are known."""
    labelled_fraction: float = 0.025
    """Share of the episodes, among those that are not measured on, from whose actions the inverse-dynamics baseline
    learns, in (0, 1]; at least one episode."""
    labeller_steps: int = 300
    """Optimizer steps of the inverse-dynamics baseline."""
    held_out: float = 0.1
    """Share of the episodes to measure on, in (0, 1). Without effect on the LAQ's training dataset, whose held-out
    episodes are in the checkpoint."""
    cache_gib: float = 2.0
    """Size of the cache of decoded frames in memory, in GiB; a larger dataset is decoded on demand."""
    seed: int | None = None
    """Seed of all random choices; default: the seed of the LAQ's training."""
    device: str | None = None
    """Device: cpu, cuda or mps; default: the best device of this machine."""

    def __post_init__(self) -> None:
        require_numbers(self, "labelled_fraction", above=0, at_most=1)
        require_numbers(self, "held_out", above=0, below=1)
        require_numbers(self, "cache_gib", at_least=0)
        require_numbers(self, "tolerance_s", above=0)
        without_effect = [] if self.baselines else changed_options(self, "labelled_fraction", "labeller_steps")
        if self.seed is not None:
            require_seed(self.seed)
        self.labeller()
        if without_effect:
            raise ValueError(f"{without_effect[0]} goes with baselines; set baselines to true, or leave it out")
        self.source(trained_on=[])

    def labeller(self) -> LabellerConfig:
        """Return the training settings of the inverse-dynamics baseline."""
        require_numbers(self, "labeller_steps", at_least=1)
        return LabellerConfig(steps=self.labeller_steps)

    def source(self, trained_on: Sequence[str]) -> SourceConfig:
        """Return the dataset or folder of videos that clips are read from.

        Args:
            trained_on: Dataset keys of the LAQ's training cameras, which are used if `cameras` is empty.

        Raises:
            ValueError: If options of a dataset and of plain videos are mixed.
        """
        default = list(trained_on) if self.video_dir is None else []
        return SourceConfig(
            dataset_repo_id=self.dataset_repo_id,
            dataset_root=self.dataset_root,
            cameras=self.cameras or default,
            video_dir=self.video_dir,
            video_fps=self.video_fps,
            skip_bad_videos=self.skip_bad_videos,
            find_scene_cuts=self.find_scene_cuts,
            episodes=self.episodes,
            tolerance_s=self.tolerance_s,
        )
