"""Write episodes of several sources as one LeRobotDataset, without encoding videos of the sources again.

Shapes: f frames of one episode, values the values of one column in a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats, get_feature_stats
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.feature_utils import get_hf_features_from_features
from lerobot.datasets.io_utils import write_stats
from lerobot.datasets.utils import update_chunk_file_indices
from lerobot.utils.constants import ACTION, DEFAULT_FEATURES

from hlrp.data.added_episodes import DecodedFrames, Episode, Statistics, StoredImages, StoredVideo
from hlrp.data.dataset import ACTION_KNOWN, ACTION_VALID, numeric_rows
from hlrp.data.encoding import encode_images, encode_video
from hlrp.data.stored_values import as_stored
from hlrp.storage.files import link_or_copy


class CombinedWriter:
    """Writer of the new dataset, as a context: the dataset is complete when the block ends without an error.

    Args:
        root: Folder of the new dataset, which must not exist.
        repo_id: Name of the new dataset.
        first: Metadata of the first dataset, whose frame rate, robot and limits of file sizes are taken over.
        features: Features of the new dataset but its numbering, cameras and vectors of numbers.
        fill: Value of every vector in frames where it is not known.
        picture_statistics: Names of the statistics of frames that all sources have.
        marks_recorded: Whether the new dataset has the column `ACTION_KNOWN`.
    """

    def __init__(
        self,
        root: Path,
        repo_id: str,
        *,
        first: LeRobotDatasetMetadata,
        features: Mapping[str, dict],
        fill: Mapping[str, Float[np.ndarray, " values"]],
        picture_statistics: frozenset[str],
        marks_recorded: bool = False,
    ) -> None:
        flags = (ACTION_VALID, ACTION_KNOWN) if marks_recorded else (ACTION_VALID,)
        known = {name: {"dtype": "bool", "shape": (1,), "names": None} for name in flags}
        self._marks_recorded = marks_recorded
        self._meta = LeRobotDatasetMetadata.create(
            repo_id,
            fps=first.fps,
            features={**deepcopy(dict(features)), **known},
            robot_type=first.robot_type,
            root=root,
            use_videos=any(feature["dtype"] == "video" for feature in features.values()),
            chunks_size=first.chunks_size,
            data_files_size_in_mb=first.data_files_size_in_mb,
            video_files_size_in_mb=first.video_files_size_in_mb,
        )
        self._fill = fill
        self._picture_statistics = picture_statistics
        self._hf_features = get_hf_features_from_features(self._meta.features)
        self._rows = _RowFiles(self._meta, self._hf_features.arrow_schema)
        self._videos = {key: _VideoFolder(self._meta, key) for key in self._meta.video_keys}
        self._statistics: list[dict[str, Statistics]] = []

    @property
    def meta(self) -> LeRobotDatasetMetadata:
        """Metadata of the new dataset, complete after the block."""
        return self._meta

    def __enter__(self) -> CombinedWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._close()
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """Close what an error has left open; without an error, nothing is."""
        for end in (self._rows.close, self._meta.finalize):
            with suppress(Exception):  # the first error is the one to report
                end()
        # LeRobot would finalize again when it frees the object, and make the folder anew that is removed by then.
        setattr(self._meta, "_finalized", True)  # noqa: B010

    def add(self, episode: Episode) -> None:
        """Append an episode."""
        meta = self._meta
        number, length = meta.total_episodes, len(episode)
        tasks = list(dict.fromkeys(episode.instructions))
        meta.save_episode_tasks(tasks)
        place: dict[str, float] = {}
        statistics: dict[str, Statistics] = {}
        columns: dict[str, pa.Array | pa.ChunkedArray] = {}
        for key, frames in episode.cameras.items():
            if key in self._videos:
                assert not isinstance(frames, StoredImages), "images are encoded to a video before they come here"
                found, of_frames = self._videos[key].add(frames)
                place |= found
            else:
                assert not isinstance(frames, StoredVideo), "videos are decoded to images before they come here"
                columns[key], of_frames = self._images(key, frames)
            if of_frames and self._picture_statistics:
                statistics[key] = {name: of_frames[name] for name in sorted(self._picture_statistics)}
        for name, fill in self._fill.items():
            values = None if name not in episode.columns else numeric_rows(episode.columns[name], name).numpy()
            columns[name], statistics[name] = self._vectors(name, values, fill, episode.known)
        numbering = self._numbering(episode)
        columns |= {name: self._array(name, np.asarray(values)) for name, values in numbering.items()}
        columns[ACTION_VALID] = self._array(ACTION_VALID, episode.known)
        if self._marks_recorded:
            columns[ACTION_KNOWN] = self._array(ACTION_KNOWN, episode.recorded)
        statistics |= compute_episode_stats(numbering, meta.features)
        place |= self._rows.add(columns)
        self._statistics.append(statistics)
        with np.errstate(invalid="ignore"):  # LeRobot's running mean is undefined until the first known action
            meta.save_episode(number, length, tasks, statistics, place)

    def _close(self) -> None:
        """Write what is still in memory, and the statistics of the whole dataset.

        Statistics are taken over the frames in which a value is known: an episode without any has the count 0.
        """
        self._rows.close()
        self._meta.finalize()
        known = [{k: s for k, s in one.items() if s["count"].any()} for one in self._statistics]
        write_stats(aggregate_stats(known), self._meta.root)

    def _images(
        self, key: str, frames: StoredImages | DecodedFrames
    ) -> tuple[pa.Array | pa.ChunkedArray, Statistics | None]:
        if isinstance(frames, StoredImages):
            return frames.column, frames.statistics
        images, statistics = encode_images(frames.frames, frames.index)
        return pa.array(images, type=self._hf_features.arrow_schema.field(key).type), statistics

    def _vectors(
        self,
        name: str,
        values: Float[np.ndarray, "f values"] | None,
        fill: Float[np.ndarray, " values"],
        known: Bool[np.ndarray, " f"],
    ) -> tuple[pa.Array | pa.ChunkedArray, Statistics]:
        """Column `name` of an episode, with `fill` where it is not known, and its statistics where it is known.

        Without any known value the statistics are those of `fill`, with the count 0.
        """
        if values is None:
            values, is_known = np.tile(fill, (len(known), 1)), np.zeros(len(known), dtype=bool)
        elif name == ACTION:
            values, is_known = np.where(known[:, None], values, fill), known
        else:
            is_known = np.isfinite(values).all(1)
        stored = as_stored(values, self._meta.features[name]["dtype"])
        measured = stored[is_known].astype(np.float64) if is_known.any() else fill[None]
        statistics = get_feature_stats(measured, axis=0, keepdims=False)
        if not is_known.any():
            statistics["count"] = np.zeros(1, dtype=np.int64)
        return self._array(name, stored), statistics

    def _numbering(self, episode: Episode) -> dict[str, list[str] | np.ndarray]:
        meta, length = self._meta, len(episode)
        tasks = {task: meta.get_task_index(task) for task in dict.fromkeys(episode.instructions)}
        values = {
            "timestamp": episode.seconds,
            "frame_index": np.arange(length),
            "episode_index": np.full(length, meta.total_episodes),
            "index": np.arange(meta.total_frames, meta.total_frames + length),
            "task_index": np.array([tasks[task] for task in episode.instructions]),
        }
        return {name: value.astype(DEFAULT_FEATURES[name]["dtype"]) for name, value in values.items()}

    def _array(self, name: str, values: np.ndarray) -> pa.Array | pa.ChunkedArray:
        """Make `values` the Arrow column `name` in the type of the new dataset."""
        feature = self._meta.features[name]
        values = values.reshape(len(values), *(() if tuple(feature["shape"]) == (1,) else feature["shape"]))
        one = datasets.Dataset.from_dict(
            {name: as_stored(values, feature["dtype"])}, features=datasets.Features({name: self._hf_features[name]})
        )
        return one.data.column(name)


class _RowFiles:
    """Parquet files of the rows of all episodes, one row group per episode, as LeRobot's recorder writes them."""

    def __init__(self, meta: LeRobotDatasetMetadata, schema: pa.Schema) -> None:
        self._meta, self._schema = meta, schema
        self._chunk, self._file = 0, 0
        self._writer: pq.ParquetWriter | None = None
        self._bytes = 0

    def add(self, columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> dict[str, float]:
        """Append the rows of an episode; returns where they are, in the form of the episode's metadata."""
        arrays = [columns[field.name] for field in self._schema]
        table = pa.Table.from_arrays(
            [a if a.type == field.type else a.cast(field.type) for a, field in zip(arrays, self._schema, strict=True)],
            schema=self._schema,
        )
        if self._bytes and self._bytes + table.nbytes > self._meta.data_files_size_in_mb * 2**20:
            self.close()
            self._chunk, self._file = update_chunk_file_indices(self._chunk, self._file, self._meta.chunks_size)
        if self._writer is None:
            name = self._meta.data_path.format(chunk_index=self._chunk, file_index=self._file)
            path = Path(self._meta.root) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(str(path), self._schema, compression="snappy")
        self._writer.write_table(table)
        self._bytes += table.nbytes
        return {"data/chunk_index": self._chunk, "data/file_index": self._file}

    def close(self) -> None:
        """Complete the file that is being written."""
        if self._writer is not None:
            self._writer.close()
        self._writer, self._bytes = None, 0


@dataclass
class _LinkedVideo:
    """Video file of a source that is part of the new dataset."""

    place: tuple[int, int]
    """Numbers of the file in the new dataset: of its folder, and within this folder."""
    end_s: float
    """End of the last episode that was taken from the file, in seconds."""


@dataclass
class _VideoFolder:
    """Video files of one camera: files of the sources, linked or copied, and one new file per decoded episode."""

    meta: LeRobotDatasetMetadata
    key: str

    def __post_init__(self) -> None:
        self._linked: dict[Path, _LinkedVideo] = {}
        self._next = (0, 0)
        self._encoder = _encoder(self.meta.features[self.key].get("info"))

    def add(self, frames: StoredVideo | DecodedFrames) -> tuple[dict[str, float], Statistics | None]:
        """Store the frames of an episode; returns its metadata about the file, and the statistics of the frames."""
        if isinstance(frames, StoredVideo):
            place, (start_s, end_s) = self._link(frames), (frames.from_s, frames.to_s)
            statistics = frames.statistics
        else:
            path, place = self._new_file()
            fps = float(self.meta.fps)
            statistics = encode_video(path, frames.frames, frames.index, fps=fps, encoder=self._encoder)
            start_s, end_s = 0.0, len(frames.index) / fps
        values = {"chunk_index": place[0], "file_index": place[1], "from_timestamp": start_s, "to_timestamp": end_s}
        return {f"videos/{self.key}/{name}": value for name, value in values.items()}, statistics

    def _link(self, frames: StoredVideo) -> tuple[int, int]:
        """Numbers of the file of the new dataset that is the source's video file, which is linked if it is not yet."""
        linked = self._linked.get(frames.path)
        # Two sources may be the same dataset, and in each video file LeRobot expects one episode after the other. So an
        # episode from an earlier part of the file than the last one gets a second link to the file.
        if linked is None or frames.from_s < linked.end_s - 0.5 / self.meta.fps:
            path, place = self._new_file()
            link_or_copy(frames.path, path)
            linked = self._linked[frames.path] = _LinkedVideo(place, frames.to_s)
        linked.end_s = frames.to_s
        return linked.place

    def _new_file(self) -> tuple[Path, tuple[int, int]]:
        """Path of the next video file, and its numbers."""
        assert self.meta.video_path is not None, "a dataset with a video camera has videos"
        chunk, number = place = self._next
        self._next = update_chunk_file_indices(chunk, number, self.meta.chunks_size)
        name = self.meta.video_path.format(video_key=self.key, chunk_index=chunk, file_index=number)
        path = Path(self.meta.root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path, place


def _encoder(info: dict | None) -> RGBEncoderConfig:
    """Encoder of the first dataset's videos; LeRobot's default if this machine cannot encode in the same way."""
    try:
        return RGBEncoderConfig.from_video_info(info)
    except (ValueError, TypeError):
        return RGBEncoderConfig()
