"""Options of `hlrp-view-labels`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hlrp.data.source_config import DEFAULT_TOLERANCE_S, require_episode_numbers, require_fitting_options
from hlrp.runtime.checks import require_numbers
from hlrp.runtime.extras import require_packages

MOST_EPISODES = 12
"""Largest number of episodes on a page."""


@dataclass
class ViewLabelsConfig:
    """Show latent labels along the video: a page with the codes of every frame under it, and the clips of each code.

    The page is one HTML file, which loads nothing and can be passed on.
    """

    dataset_repo_id: str | None = None
    """Repo id of the labelled dataset; default: local/hlrp_demos."""
    dataset_root: str | None = None
    """Folder of the dataset; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    video_dir: str | None = None
    """Folder of plain videos with labels, instead of a dataset."""
    labels_path: str | None = None
    """Folder of the latent labels; default: the folder `latents` inside the dataset or the folder of videos, else the
    label columns of the dataset."""
    camera: str | None = None
    """Dataset key of the camera to show; default: the first camera that was labelled."""
    episodes: list[int] | None = None
    """Numbers of the episodes to show, at most 12; default: three, spread over the dataset."""
    max_seconds: float = 30.0
    """Longest part of an episode that is shown, from its start, in seconds; at most 60."""
    clips_per_code: int = 3
    """Clips that are shown of each code, at most 6; 0 for none."""
    max_mb: float = 16.0
    """Largest size of the page in MB; videos are made coarser, and then shorter, until they fit. At least 1."""
    output_dir: str = "outputs/labels_view"
    """Folder for report.html; must not exist."""
    rerun: Path | None = None
    """File for a recording of the same episodes for Rerun, such as labels.rrd; must not exist. Default: none. Needs the
    extra `viewer`."""
    tolerance_s: float = DEFAULT_TOLERANCE_S
    """Largest accepted difference between a frame's time stamp and the dataset's frame rate, in seconds. Raise it for
    datasets with imprecise time stamps."""

    def __post_init__(self) -> None:
        require_numbers(self, "max_seconds", above=0, at_most=60)
        require_numbers(self, "clips_per_code", at_least=0, at_most=6)
        require_numbers(self, "max_mb", at_least=1)
        require_numbers(self, "tolerance_s", above=0)
        require_episode_numbers(self.episodes)
        if self.episodes is not None and len(self.episodes) > MOST_EPISODES:
            raise ValueError(f"episodes names {len(self.episodes)} episodes, a page shows at most {MOST_EPISODES}")
        if self.video_dir is not None:
            named = [name for name in ("dataset_root", "dataset_repo_id", "camera") if getattr(self, name)]
            if named:
                raise ValueError(f"video_dir and {named[0]} exclude each other: plain videos are no dataset")
        require_fitting_options(self)
        if self.rerun is not None:
            if Path(self.output_dir).absolute() in self.rerun.absolute().parents:
                raise ValueError(f"rerun {self.rerun} is inside output_dir {self.output_dir}; name a file beside it")
            require_packages("rerun", needed_for="a recording for Rerun")
