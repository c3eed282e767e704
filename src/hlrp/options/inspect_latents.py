"""Options of `hlrp-inspect-latents`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hlrp.data.source_config import DEFAULT_TOLERANCE_S, SourceConfig
from hlrp.laq.objective.config import LabellerConfig
from hlrp.runtime.checks import require_numbers, require_seed


@dataclass
class InspectConfig:
    """Measure a LAQ on a dataset: on the episodes that its training held out, or on another dataset altogether."""

    laq_path: str = "outputs/laq"
    """Folder of the LAQ checkpoint, or its name on the hub."""
    dataset_repo_id: str | None = None
    """Repo id of the dataset; default: local/hlrp_demos."""
    dataset_root: str | None = None
    """Its folder; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    cameras: list[str] = field(default_factory=list)
    """Dataset keys of the cameras; default: those the LAQ was trained on."""
    video_dir: str | None = None
    """Folder of plain videos, instead of a dataset; figures of actions are then left out."""
    video_fps: float | None = None
    """Frames per second at which to read them; default: the highest rate among them."""
    skip_bad_videos: bool = False
    """Leave out video files that cannot be read, with a warning, instead of refusing the folder."""
    find_scene_cuts: bool = True
    """Leave out clips that lie across a scene cut of a film; decodes every film once beforehand."""
    tolerance_s: float = DEFAULT_TOLERANCE_S
    """Largest difference between the time stamps of the dataset and its frame rate, in seconds; raise it where they are
    rough."""
    output_dir: str | None = None
    """Folder for metrics.json and report.html; must not exist. Without it figures are printed only."""
    baselines: bool = False
    """Measure codes of the same size beside it: of an untrained LAQ, of inverse dynamics, of the true actions."""
    labelled_fraction: float = 0.025
    """Share of the other episodes whose actions the inverse-dynamics baseline learns from; at least one episode."""
    labeller_steps: int = 300
    """Optimizer steps of that baseline."""
    held_out: float = 0.1
    """Share of episodes to measure on; the dataset of the training brings its own split, and needs none."""
    cache_gib: float = 2.0
    """Keep decoded frames in memory up to this size; larger datasets are decoded on demand."""
    seed: int | None = None
    """Of every draw; default: that of the training."""
    device: str | None = None
    """cpu, cuda, mps; default: the best there is."""

    def __post_init__(self) -> None:
        require_numbers(self, "labelled_fraction", above=0, at_most=1)
        require_numbers(self, "held_out", above=0, below=1)
        require_numbers(self, "cache_gib", at_least=0)
        require_numbers(self, "tolerance_s", above=0)
        if self.seed is not None:
            require_seed(self.seed)
        self.labeller()
        self.source(trained_on=[])

    def labeller(self) -> LabellerConfig:
        """Training of the inverse-dynamics baseline."""
        require_numbers(self, "labeller_steps", at_least=1)
        return LabellerConfig(steps=self.labeller_steps)

    def source(self, trained_on: Sequence[str]) -> SourceConfig:
        """Where clips come from; a dataset through the cameras that the LAQ was `trained_on`, if none is named."""
        if self.video_dir is not None:
            return SourceConfig(
                video_dir=self.video_dir,
                video_fps=self.video_fps,
                skip_bad_videos=self.skip_bad_videos,
                find_scene_cuts=self.find_scene_cuts,
                dataset_repo_id=self.dataset_repo_id,
                dataset_root=self.dataset_root,
                cameras=self.cameras,
                tolerance_s=self.tolerance_s,
            )
        return SourceConfig(
            dataset_repo_id=self.dataset_repo_id,
            dataset_root=self.dataset_root,
            video_fps=self.video_fps,
            skip_bad_videos=self.skip_bad_videos,
            cameras=self.cameras or list(trained_on),
            tolerance_s=self.tolerance_s,
        )
