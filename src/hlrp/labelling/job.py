"""A labelling job: the frames, the model that labels them, and the shards. They determine the labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch import Tensor

from hlrp.data.clip_starts import frames_left, require_clip
from hlrp.data.labels import LabelMetadata
from hlrp.data.sources import ClipSource
from hlrp.data.video_folder import scene_cuts
from hlrp.labelling.labellers import Labeller
from hlrp.labelling.shards import Shard, plan_shards

_VERSION = 1
"""Increased when the same options give other shards, so that shards of an earlier version are made again."""


@dataclass(frozen=True, kw_only=True)
class LabelJob:
    """Labels of all frames of a source by one model, split into shards."""

    source: ClipSource
    """The frames, at the image size of the labeller; scene cuts are searched shard by shard."""
    folder: Path
    """Folder of the source, which is left out of stored messages."""
    dataset: LeRobotDataset | None
    """The source, if it is a dataset; None for video files."""
    labeller: Labeller
    metadata: LabelMetadata
    """Description of the labels, still without skipped episodes."""
    batch_size: int
    """Clips of a batch. No batch holds clips of two shards, so that labels do not depend on who labels which shard."""
    shard_frames: int
    """Largest number of frames of a shard with several episodes."""
    find_scene_cuts: bool = False
    """Leave out clips that contain a scene cut of a video file."""
    skip_bad_episodes: bool = False
    """Leave out episodes that cannot be read, instead of raising an error."""
    beside: Callable[[LabelMetadata, int], Mapping[str, str]] | None = None
    """Makes further files of a labelled copy of the dataset, by path within it, from the description of the labels and
    the number of frames with a label; None for none."""

    def __post_init__(self) -> None:
        require_clip(self.source.bounds, self.deltas)

    @property
    def deltas(self) -> list[int]:
        """Frames of a clip, relative to its first frame, in frames of the source."""
        return self.metadata.spec.frame_deltas(self.source.fps)

    def shards(self) -> list[Shard]:
        """All shards, in the order of their frames."""
        return plan_shards(self.source, max_frames=self.shard_frames)

    def fingerprint(self) -> str:
        """16 hexadecimal digits that differ if the labels or their shards may differ."""
        plan = [
            _VERSION,
            self.metadata.to_dict(),
            self.batch_size,
            self.shard_frames,
            self.find_scene_cuts,
            self.skip_bad_episodes,
        ]
        digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode())
        digest.update(self.source.bounds.numpy().tobytes())
        return digest.hexdigest()[:16]

    def usable(self, shard: Shard, *, without: frozenset[int] = frozenset()) -> Bool[Tensor, " f"]:
        """Which frames of `shard` get a label: those whose clip ends within its episode and scene.

        Raises:
            ValueError: If scene cuts are searched and a film cannot be decoded completely.
        """
        bounds = self.source.bounds[shard.episodes.start : shard.episodes.stop]
        kept = torch.tensor([number not in without for number in shard.episodes])
        scenes = self._scenes(shard, without) if self.find_scene_cuts else bounds
        is_kept = torch.repeat_interleave(kept, bounds[:, 1] - bounds[:, 0])
        return (frames_left(scenes) >= max(self.deltas)) & is_kept

    def _scenes(self, shard: Shard, without: frozenset[int]) -> Tensor:
        """Start and end of every scene of `shard`."""
        edges = []
        for episode in shard.episodes:
            first, end = self.source.bounds[episode].tolist()
            film = self.source.frames.cameras[0]
            cuts = [] if episode in without else scene_cuts(film, first, end, fps=self.source.fps).tolist()
            edges += list(zip([first, *cuts], [*cuts, end], strict=True))
        return torch.tensor(edges)


OpenJob = Callable[[LabelMetadata | None], LabelJob]
"""Function that opens a job. With the description of its labels, which another process has made, the dataset is not
checked and identified again; this takes a time that grows with its frames."""
