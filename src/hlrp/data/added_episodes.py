"""Episodes of LeRobotDatasets and films, brought to the cameras, the size and the frame rate of one new dataset.

Shapes: f frames of one episode.
"""

from __future__ import annotations

import csv
import json
import logging
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import torch
from jaxtyping import Bool, Float, Int
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import EPISODES_DIR
from lerobot.utils.constants import ACTION
from torch import Tensor

from hlrp.data.dataset import (
    episode_bounds,
    episode_of_frame,
    has_actions,
    numeric_rows,
    read_actions,
    read_instructions,
)
from hlrp.data.dataset_files import data_files
from hlrp.data.episode_split import chosen_episodes
from hlrp.data.frames import FrameSource, stored_frames
from hlrp.data.sources import ClipSource, actions_read_from_video
from hlrp.runtime.tables import shortened

logger = logging.getLogger(__name__)

Statistics = dict[str, np.ndarray]
"""Statistics of one column as LeRobot stores them: min, max, mean, std, count and quantiles."""
_ALL_STATISTICS = frozenset({"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"})

_SHORTEST_SCENE = 2
"""Frames of the shortest scene of a film that becomes an episode; a clip has two."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What all episodes of the new dataset have in common."""

    fps: float
    cameras: dict[str, tuple[int, int]]
    """Height and width of the frames of each camera, by dataset key."""
    video_cameras: frozenset[str]
    """Cameras whose frames are stored in video files; those of the others are stored as single images."""


@dataclass(frozen=True, kw_only=True)
class StoredVideo:
    """Frames of one camera in a video file that becomes part of the new dataset without being encoded again."""

    path: Path
    from_s: float
    """Start of the episode in the file, in seconds."""
    to_s: float
    """End of the episode in the file, in seconds."""
    statistics: Statistics | None


@dataclass(frozen=True, kw_only=True)
class StoredImages:
    """Frames of one camera as compressed images, which become part of the new dataset as they are."""

    column: pa.ChunkedArray
    statistics: Statistics | None


@dataclass(frozen=True, kw_only=True)
class DecodedFrames:
    """Frames of one camera that are decoded, fitted to the new dataset and encoded again."""

    frames: FrameSource
    index: Int[Tensor, " f"]
    """Index in `frames` of every frame of the new episode."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode of the new dataset."""

    instructions: list[str]
    """Instruction of every frame."""
    seconds: Float[np.ndarray, " f"]
    """Time stamp of every frame, from 0."""
    known: Bool[np.ndarray, " f"]
    """Whether the action of a frame is known."""
    recorded: Bool[np.ndarray, " f"]
    """Whether the action of a frame is known and was recorded, rather than predicted from video."""
    cameras: dict[str, StoredVideo | StoredImages | DecodedFrames]
    columns: dict[str, pa.ChunkedArray] = field(default_factory=dict)
    """States, actions and other vectors of every frame; a vector that is missing here is unknown."""

    def __len__(self) -> int:
        return len(self.instructions)


@runtime_checkable
class EpisodeSource(Protocol):
    """Episodes of one dataset or of one folder of films."""

    @property
    def name(self) -> str:
        """Name of the source in messages."""
        ...

    @property
    def folder(self) -> Path | None:
        """Folder of a dataset; None for films."""
        ...

    def __len__(self) -> int:
        """Number of episodes."""
        ...

    def __iter__(self) -> Iterator[Episode]:
        """All episodes, in order."""
        ...

    @property
    def picture_statistics(self) -> frozenset[str]:
        """Names of the statistics that every episode has of its frames."""
        ...


class DatasetEpisodes:
    """Episodes of a LeRobotDataset.

    Args:
        dataset: The dataset.
        target: What all episodes of the new dataset have in common.
        cameras: For each camera of the new dataset, the key of this camera in `dataset`.
        columns: Columns whose values are kept.
        episodes: Numbers of the episodes to take; None for all.
        labelled_episodes: Numbers of the episodes whose actions are known; empty for all.
        instruction: Instruction of all episodes, instead of the dataset's tasks.

    Raises:
        ValueError: If an episode does not exist, or columns of a dataset of another frame rate should be kept.
    """

    def __init__(
        self,
        dataset: LeRobotDataset,
        *,
        target: Target,
        cameras: Mapping[str, str],
        columns: Sequence[str],
        episodes: Sequence[int] | None = None,
        labelled_episodes: Sequence[int] = (),
        instruction: str | None = None,
    ) -> None:
        if columns and dataset.fps != target.fps:
            raise ValueError(
                f"{dataset.repo_id} has {dataset.fps:g} frames a second, the first dataset {target.fps:g}: its columns "
                f"{', '.join(columns)} cannot be kept"
            )
        self.name, self.folder = dataset.repo_id, Path(dataset.root)
        self._dataset, self._target = dataset, target
        self._cameras = {key: cameras[key] for key in target.cameras}
        self._columns = list(columns)
        self.numbers = chosen_episodes(dataset.meta.total_episodes, episodes, name=self.name).tolist()
        self._bounds = episode_bounds(dataset.meta)
        self._instructions = [instruction] * dataset.num_frames if instruction else read_instructions(dataset)
        self._known = self._known_actions(labelled_episodes)
        read_from_video = actions_read_from_video(dataset)
        self._recorded = self._known if read_from_video is None else self._known & ~read_from_video.numpy()
        self._decoded = {
            key: stored_frames(dataset, own, target.cameras[key], crop=True)
            for key, own in self._cameras.items()
            if not self._fits(key, own)
        }
        self._statistics = {
            key: _stored_statistics(dataset.meta, own) for key, own in self._cameras.items() if key not in self._decoded
        }

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Episode]:
        for number in self.numbers:
            first, end = self._bounds[number].tolist()
            index = self._sampled(first, end)
            rows = self._dataset.hf_dataset.data.table.slice(first, end - first)
            is_sampled = self._dataset.fps != self._target.fps
            yield Episode(
                instructions=[self._instructions[row] for row in index.tolist()],
                seconds=np.arange(len(index)) / self._target.fps if is_sampled else rows.column("timestamp").to_numpy(),
                known=self._known[index.numpy()],
                recorded=self._recorded[index.numpy()],
                cameras={key: self._frames(key, number, index, rows) for key in self._cameras},
                columns={name: rows.column(name) for name in self._columns},
            )

    @property
    def picture_statistics(self) -> frozenset[str]:
        """Names of the statistics that every episode has of its frames; older datasets have no quantiles."""
        stored = [frozenset(one or ()) for key in self._statistics for one in self._statistics[key]]
        return _ALL_STATISTICS.intersection(*stored)

    def mean(self, column: str) -> Float[np.ndarray, " _"]:
        """Mean of a column over the frames of these episodes in which it is finite, or in which the action is known.

        Raises:
            ValueError: If there is no such frame.
        """
        values = numeric_rows(self._dataset.hf_dataset.data.column(column), column).numpy()
        usable = self._known if column == ACTION else np.isfinite(values).all(1)
        usable = usable & np.isin(episode_of_frame(self._bounds).numpy(), self.numbers)
        if not usable.any():
            raise ValueError(f"{self.name} has no frame with a known {column!r} in the episodes that were chosen")
        return values[usable].mean(0)

    def _frames(
        self, key: str, number: int, index: Int[Tensor, " f"], rows: pa.Table
    ) -> StoredVideo | StoredImages | DecodedFrames:
        """Frames of camera `key` of episode `number`, whose `rows` are in the data files."""
        if key in self._decoded:
            return DecodedFrames(frames=self._decoded[key], index=index)
        own, statistics = self._cameras[key], self._statistics[key][number]
        if own in self._dataset.meta.image_keys:
            return StoredImages(column=rows.column(own), statistics=statistics)
        meta = self._dataset.meta
        assert meta.episodes is not None, "a dataset that was opened has its episodes"
        episode = meta.episodes[number]
        return StoredVideo(
            path=Path(meta.root) / meta.get_video_file_path(number, own),
            from_s=episode[f"videos/{own}/from_timestamp"],
            to_s=episode[f"videos/{own}/to_timestamp"],
            statistics=statistics,
        )

    def _sampled(self, first: int, end: int) -> Int[Tensor, " f"]:
        """Index of the frame on screen in the middle of each frame of the new episode."""
        theirs, ours = float(self._dataset.fps), self._target.fps
        count = max(int((end - first) / theirs * ours + 0.499), 1)
        places = ((torch.arange(count, dtype=torch.float64) + 0.5) / ours * theirs).floor().long()
        return first + places.clamp_max(end - first - 1)

    def _known_actions(self, labelled_episodes: Sequence[int]) -> Bool[np.ndarray, " f"]:
        """Mask of all frames of the dataset whose action is known."""
        if ACTION not in self._columns or not has_actions(self._dataset):
            return np.zeros(self._dataset.num_frames, dtype=bool)
        known = read_actions(self._dataset).isfinite().all(1)
        if labelled_episodes:
            chosen = chosen_episodes(self._dataset.meta.total_episodes, labelled_episodes, name=self.name)
            known &= torch.isin(episode_of_frame(self._bounds), chosen)
        return known.numpy()

    def _fits(self, key: str, own: str) -> bool:
        """Whether the stored frames of camera `own` can become those of `key` as they are; if not, log the reason."""
        meta, target = self._dataset.meta, self._target
        size = stored_size(self._dataset, own, int(self._bounds[self.numbers[0], 0]))
        reasons = {
            f"{meta.fps:g} frames a second instead of {target.fps:g}": meta.fps != target.fps,
            f"{size[0]}x{size[1]} pixels instead of {target.cameras[key][0]}x{target.cameras[key][1]}": size
            != target.cameras[key],
            "images instead of videos, or the reverse": (own in meta.video_keys) != (key in target.video_cameras),
        }
        found = [reason for reason, applies in reasons.items() if applies]
        if found:
            logger.info(f"{self.name}: frames of {own} are encoded again, since they have {', '.join(found)}")
        return not found


class FilmEpisodes:
    """Episodes from films: one per scene.

    Args:
        source: The films, read at the frame rate of the new dataset.
        camera: Camera of the new dataset that shows the films.
        instructions: Instruction of every film.
        split: Whether to split films at scene cuts.
    """

    def __init__(self, source: ClipSource, *, camera: str, instructions: Sequence[str], split: bool) -> None:
        self.name, self.folder = source.name, None
        self._source, self._camera, self._instructions = source, camera, list(instructions)
        scenes = source.scenes if split else source.bounds
        long_enough = scenes[:, 1] - scenes[:, 0] >= _SHORTEST_SCENE
        if not long_enough.all():
            logger.info(f"{self.name}: {int((~long_enough).sum())} scenes of a single frame are left out")
        self._scenes = scenes[long_enough]
        self.picture_statistics = _ALL_STATISTICS

    def __len__(self) -> int:
        return len(self._scenes)

    def __iter__(self) -> Iterator[Episode]:
        film = torch.searchsorted(self._source.bounds[:, 1].contiguous(), self._scenes[:, 0].contiguous(), right=True)
        for (first, end), number in zip(self._scenes.tolist(), film.tolist(), strict=True):
            yield Episode(
                instructions=[self._instructions[number]] * (end - first),
                seconds=np.arange(end - first) / self._source.fps,
                known=np.zeros(end - first, dtype=bool),
                recorded=np.zeros(end - first, dtype=bool),
                cameras={
                    self._camera: DecodedFrames(frames=self._source.frames.cameras[0], index=torch.arange(first, end))
                },
            )


def stored_size(dataset: LeRobotDataset, camera: str, frame: int = 0) -> tuple[int, int]:
    """Height and width of the stored frames of `camera`, which may differ from those in the metadata."""
    sample: Any = dataset[frame]
    height, width = sample[camera].shape[-2:]
    return height, width


def _stored_statistics(meta: LeRobotDatasetMetadata, camera: str) -> list[Statistics | None]:
    """Statistics of the frames of every episode; those of the whole dataset if it has none of single episodes."""
    table = pads.dataset([str(path) for path in data_files(Path(meta.root) / EPISODES_DIR)])
    prefix = f"stats/{camera}/"
    names = [name for name in table.schema.names if name.startswith(prefix)]
    if not names:
        return [(meta.stats or {}).get(camera)] * meta.total_episodes
    rows = table.to_table(columns=names).to_pylist()
    return [{name.removeprefix(prefix): np.array(value) for name, value in row.items()} for row in rows]


def film_instructions(
    names: Sequence[str], *, instruction: str | None, file: str | None, skipped: Sequence[str] = ()
) -> list[str]:
    """Instruction of every film.

    Names of films are compared in one form of Unicode, since file systems differ in how they write an accent.

    Args:
        names: Paths of the films within their folder.
        instruction: Instruction of films that `file` does not name; None if it must name all.
        file: JSON or CSV file of instructions; None for `instruction` alone.
        skipped: Paths of further files in the folder, which `file` may name too.

    Raises:
        FileNotFoundError: If `file` does not exist.
        ValueError: If `file` cannot be read or names a film that is not there, or a film has no instruction.
    """
    texts = {} if file is None else {_composed(name): text for name, text in _read_texts(Path(file)).items()}
    extra = [name for name in texts if name not in {_composed(name) for name in (*names, *skipped)}]
    if extra:
        raise ValueError(
            f"{file} has an instruction for {shortened(extra)}, and the folder no such film; write its path "
            "within the folder, or remove the entry"
        )
    found = [texts.get(_composed(name)) or instruction or "" for name in names]
    lost = [name for name, text in zip(names, found, strict=True) if not text.strip()]
    if lost:
        raise ValueError(f"{file} has no instruction for {', '.join(lost)}; add them, or name instruction for the rest")
    return found


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _read_texts(file: Path) -> dict[str, str]:
    """Instructions by film, from a JSON object or from a CSV file with a film and its instruction in each row.

    Blanks around names and instructions are left out.
    """
    if not file.is_file():
        raise FileNotFoundError(f"instructions {file} is not a file")
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            texts = (
                json.load(opened) if file.suffix.lower() == ".json" else dict(csv.reader(opened, skipinitialspace=True))
            )
    except ValueError as error:
        raise ValueError(
            f"instructions {file} cannot be read ({error}); expected JSON with an object of instructions by file, or "
            "CSV with a file and its instruction in each row"
        ) from error
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError(f"instructions {file} must hold an object with a text for each file")
    return {name.strip(): text.strip() for name, text in texts.items()}
