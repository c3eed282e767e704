"""What the stages train on, as named on a command line; without torch, so that `--help` answers at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hlrp.runtime.checks import require_number, require_numbers

DEFAULT_REPO_ID = "local/hlrp_demos"
"""Where `hlrp-collect-demos` records to, when nothing is named."""
DEFAULT_TOLERANCE_S = 1e-4
"""Largest difference between a time stamp and the frame rate that is overlooked, in seconds; LeRobot's own default."""


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
    episodes: list[int] | None = None
    """Numbers of the episodes to use, trained on or held out; films count in the order of their paths. Default: all."""
    weight: float | None = None
    """Share of the training clips, relative to other sources; default: as its number of clips."""
    tolerance_s: float = DEFAULT_TOLERANCE_S
    """Largest difference between the time stamps of a dataset and its frame rate, in seconds; raise it where they are
    rough."""

    def __post_init__(self) -> None:
        require_numbers(self, "tolerance_s", above=0)
        named = [name for name in ("dataset_repo_id", "dataset_root", "cameras") if getattr(self, name)]
        if self.video_dir is not None and named:
            raise ValueError(f"video_dir and {named[0]} exclude each other: plain videos are no dataset")
        if self.video_dir is not None and self.tolerance_s != DEFAULT_TOLERANCE_S:
            raise ValueError("tolerance_s goes with a dataset; plain videos are read by their own time stamps")
        require_episode_numbers(self.episodes)
        if self.video_dir is None and self.video_fps is not None:
            raise ValueError("video_fps goes with video_dir; a dataset has its own frame rate")
        if self.video_dir is None and self.skip_bad_videos:
            raise ValueError("skip_bad_videos goes with video_dir; no video of a dataset may be left out")
        require_numbers(self, "video_fps", "weight", above=0)


@dataclass(kw_only=True)
class ObservationConfig:
    """A LeRobotDataset with instructions; actions are not needed."""

    dataset_repo_id: str | None = None
    """Repo id of the dataset; default: local/hlrp_demos."""
    dataset_root: str | None = None
    """Its folder; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    labels_path: str | None = None
    """Folder of its latent labels; default: `latents` in its folder, else its own columns."""
    cameras: list[str] = field(default_factory=list)
    """Dataset keys of the cameras the model sees; default: the one the labels are of."""
    episodes: list[int] | None = None
    """Numbers of the episodes to use, trained on or held out; default: all."""
    weight: float | None = None
    """Share of the samples, relative to other datasets; default: every frame once an epoch."""
    tolerance_s: float = DEFAULT_TOLERANCE_S
    """Largest difference between its time stamps and its frame rate, in seconds; raise it where they are rough."""

    def __post_init__(self) -> None:
        require_numbers(self, "weight", "tolerance_s", above=0)
        require_episode_numbers(self.episodes)


@dataclass(frozen=True, kw_only=True)
class LabelledShare:
    """Few known actions: which training episodes may show theirs."""

    fraction: float = 0.0
    """Share of the training episodes of every source with actions, drawn by the seed."""
    episodes: Sequence[int] = ()
    """Or these episodes, of the only source."""

    def __post_init__(self) -> None:
        require_number("labelled_fraction", self.fraction, at_least=0, at_most=1)
        require_number("labelled_episodes", list(self.episodes), at_least=0)


@dataclass(frozen=True, kw_only=True)
class ClipAugmentation:
    """Label-free variation of clips, so that the future cannot be guessed from the first frame alone."""

    reverse_probability: float = 0.5
    """Share of clips played backwards: the direction of motion must then come from the code."""
    reverse_until: float = 0.7
    """Share of the run after which clips are played forwards only, so that codes settle on what data holds."""
    max_stretch: float = 0.0
    """Draw offsets between 0 and this many times the nominal one; 0 keeps the nominal one."""

    def __post_init__(self) -> None:
        require_numbers(self, "reverse_until", "reverse_probability", at_least=0, at_most=1)
        require_numbers(self, "max_stretch", at_least=0)


@dataclass(frozen=True, kw_only=True)
class IdleClips:
    """Clips in which next to nothing moves: teleoperators wait, and a code for "nothing" learns little from many."""

    weight: float = 1.0
    """How often an idle clip is drawn, relative to the others; 1 draws all alike and looks at no clip beforehand."""
    share: float = 0.25
    """Clips of a source with the least motion that count as idle."""

    def __post_init__(self) -> None:
        require_number("idle_weight", self.weight, above=0)
        require_number("idle_share", self.share, above=0, below=1)


def require_episode_numbers(numbers: Sequence[int] | None) -> None:
    """Check a choice of episodes before any dataset is opened.

    Raises:
        ValueError: If it is empty, or names an episode twice or below 0.
    """
    if numbers is None:
        return
    if not numbers:
        raise ValueError("episodes is empty, which would leave nothing to train on; leave it out to use all episodes")
    twice = sorted({number for number in numbers if list(numbers).count(number) > 1})
    if twice or min(numbers) < 0:
        raise ValueError(f"episodes must be different numbers from 0 on, got {list(numbers)}")
