"""A source of clips for stage 1: frames, episodes and, if known, actions of one dataset or one folder of videos."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch import Tensor

from hlrp.data.dataset import (
    ACTION_KNOWN,
    DEFAULT_TOLERANCE_S,
    episode_bounds,
    has_actions,
    open_dataset,
    read_actions,
    read_vectors,
    require_camera,
)
from hlrp.data.frames import StackedFrames, open_frames
from hlrp.data.recording_identity import RecordingIdentity, source_identity

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """Frames, episodes and actions of one dataset, or of one folder of videos in which each file is an episode."""

    name: str
    """Name of the source in messages and reports."""
    frames: StackedFrames
    """Frames of all cameras by absolute index."""
    bounds: Int[Tensor, "e 2"]
    """Start and end of every episode: its first frame, and one after its last frame."""
    fps: float
    """Frame rate, in Hz."""
    cameras: tuple[str, ...]
    """Dataset keys of the cameras, in the order of `frames`; empty for video files, which count as one camera."""
    actions: Float[Tensor, "f a"] | None
    """Action of every frame, in dataset units. Rows that are not finite are unknown; None if all rows are unknown."""
    read_from_video: Bool[Tensor, " f"] | None = None
    """Whether `hlrp-pseudo-label` predicted an action from video, so that it is no truth to measure on; None if all
    actions were recorded."""
    cuts: Int[Tensor, " cuts"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """First frame after every scene cut within an episode, in order; empty for robot recordings, which have no cuts."""

    episode_names: tuple[str, ...] = ()
    """For video files: path of every episode's file within the folder. Empty for datasets."""

    @property
    def scenes(self) -> Int[Tensor, "scenes 2"]:
        """Start and end of every scene: the episodes, split at scene cuts; in the form of `bounds`."""
        starts = torch.cat([self.bounds[:, 0], self.cuts]).sort().values
        ends = torch.cat([self.bounds[:, 1], self.cuts]).sort().values
        return torch.stack([starts, ends], dim=1)

    def identity(self) -> RecordingIdentity:
        """Identity of the recordings, for `RecordingIdentity.matches`."""
        return source_identity(self.name, self.bounds, fps=self.fps, actions=self.actions)

    @property
    def recorded_actions(self) -> Float[Tensor, "f a"] | None:
        """`actions` that were recorded with the frames; those that were predicted from video are NaN."""
        if self.actions is None or self.read_from_video is None:
            return self.actions
        return self.actions.masked_fill(self.read_from_video[:, None], torch.nan)

    @property
    def num_cameras(self) -> int:
        """Number of cameras m of a clip."""
        return max(len(self.cameras), 1)


def open_lerobot_source(
    repo_id: str,
    root: Path | str | None,
    *,
    cameras: Sequence[str],
    image_size: tuple[int, int],
    cache_gib: float,
    tolerance_s: float = DEFAULT_TOLERANCE_S,
) -> ClipSource:
    """Open a LeRobotDataset as a source of clips; if `cameras` is empty, the dataset must have only one camera."""
    dataset = open_dataset(repo_id, root, tolerance_s=tolerance_s)
    return lerobot_source(dataset, cameras=cameras, image_size=image_size, cache_gib=cache_gib)


def lerobot_source(
    dataset: LeRobotDataset,
    *,
    cameras: Sequence[str],
    image_size: tuple[int, int],
    cache_gib: float,
    with_actions: bool = True,
) -> ClipSource:
    """Make an opened LeRobotDataset a source of clips; if `cameras` is empty, the dataset must have only one camera.

    Args:
        dataset: The dataset.
        cameras: Dataset keys of the cameras.
        image_size: Height and width of frames.
        cache_gib: Keep frames in memory up to this size, in GiB.
        with_actions: Whether to read the actions of all frames into memory.

    Raises:
        ValueError: If the dataset lacks one of `cameras`, or has several cameras and `cameras` is empty.
    """
    names = [require_camera(dataset.meta, camera) for camera in (cameras or [None])]
    frames = [open_frames(dataset, name, image_size, cache_gib=cache_gib / len(names)) for name in names]
    return ClipSource(
        name=dataset.repo_id,
        frames=StackedFrames(frames),
        bounds=episode_bounds(dataset.meta),
        fps=float(dataset.fps),
        cameras=tuple(names),
        actions=finite_actions(dataset) if with_actions else None,
        read_from_video=actions_read_from_video(dataset) if with_actions else None,
    )


def actions_read_from_video(dataset: LeRobotDataset) -> Bool[Tensor, " f"] | None:
    """Mask of the actions that `hlrp-pseudo-label` predicted from video; None if another program wrote the dataset."""
    known = read_vectors(dataset.meta, ACTION_KNOWN) if ACTION_KNOWN in dataset.meta.features else None
    return None if known is None else known[:, 0] != 1


def finite_actions(dataset: LeRobotDataset) -> Float[Tensor, "f a"] | None:
    """Actions of all frames, or None if there are none or none is finite; logs how many actions are not finite."""
    if not has_actions(dataset):
        return None
    actions = read_actions(dataset)
    unknown = int((~actions.isfinite().all(1)).sum())
    if unknown:
        logger.info(
            f"{unknown} of {len(actions)} frames of {dataset.repo_id} have an action that is NaN or infinite, or not "
            "marked as known: they count as frames without an action"
        )
    return None if unknown == len(actions) else actions
