"""Check the time stamps of a dataset's frames, chunk by chunk.

Shapes: f frames of a chunk.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from hlrp.runtime.tables import shortened

_RATE_TOLERANCE = 0.05
"""Largest relative difference between `fps` and the median frame rate of time stamps; a wrong `fps` differs by more."""
_BIN_EDGES = np.sort(
    np.concatenate([[0.0], np.geomspace(1e-4, 1e4, 20_000), [1 - _RATE_TOLERANCE, 1 + _RATE_TOLERANCE]])
)
"""Edges of the bins in which the time between two frames is counted, in units of 1 / fps. A bin spans 0.1 %, and no bin
holds values on both sides of the tolerated difference."""


class TimeStampCheck:
    """Whether the time stamps within each episode increase by 1 / fps from frame to frame.

    The median time between two frames is taken from counts and means of bins, so that memory does not grow with the
    number of frames.
    """

    def __init__(self, meta: LeRobotDatasetMetadata, *, tolerance_s: float | None) -> None:
        """Begin to check.

        Args:
            meta: Metadata of the dataset.
            tolerance_s: Largest deviation of the time between two frames from 1 / fps, in seconds; None to compare only
                the median frame rate. In any case, a frame of a video must have the time of its number: LeRobot
                looks pictures up by time, HLRP by number.
        """
        self._root, self._fps, self._has_videos = Path(meta.root), float(meta.fps), bool(meta.video_keys)
        self._tolerance_s = tolerance_s
        self._count = np.zeros(len(_BIN_EDGES) + 1, dtype=np.int64)
        self._sum = np.zeros(len(_BIN_EDGES) + 1)
        self._has_nan = False
        self._latest = 0.0
        """Largest deviation of a step from 1 / fps, in seconds."""
        self._largest = 0.0
        """Largest time stamp, in seconds."""
        self._last: tuple[float, int] | None = None
        """Time stamp and episode of the last row of the chunk before."""
        self._half_slot = 0.5 / self._fps
        """Largest deviation, in seconds, of a time stamp from frame / fps; beyond it another picture is shown."""
        self._off = _Off(self._half_slot)

    def add(
        self, timestamp: Float[np.ndarray, " f"], episode: Int[np.ndarray, " f"], frame: Int[np.ndarray, " f"]
    ) -> None:
        """Take the next rows: their time stamps in seconds, episodes, and numbers of frames in their episode."""
        seconds = timestamp.astype(np.float64)
        self._add_steps(seconds, episode)
        self._last = (float(seconds[-1]), int(episode[-1]))
        self._largest = float(np.maximum(self._largest, np.abs(seconds).max()))
        if self._has_videos:
            self._off.add(np.abs(seconds - frame / self._fps), episode, frame, seconds)

    def _add_steps(self, seconds: Float[np.ndarray, " f"], episode: Int[np.ndarray, " f"]) -> None:
        if self._last is not None:
            seconds, episode = np.append(self._last[0], seconds), np.append(self._last[1], episode)
        steps = np.diff(seconds)[episode[1:] == episode[:-1]]
        if not len(steps):
            return
        self._has_nan = self._has_nan or bool(np.isnan(steps).any())
        self._latest = float(np.maximum(self._latest, np.abs(steps - 1 / self._fps).max()))
        place = np.searchsorted(_BIN_EDGES, steps * self._fps)
        self._count += np.bincount(place, minlength=len(self._count))
        self._sum += np.bincount(place, weights=steps, minlength=len(self._sum))

    def finish(self) -> None:
        """Raise if the time stamps of all rows are wrong.

        Raises:
            ValueError: If the median frame rate is not `fps`, a step deviates by more than the tolerance, or a frame of
                a video has the time of another frame.
        """
        if not self._count.any():
            return
        self._require_rate()
        if not self._off.seconds <= self._half_slot:
            worst = self._off
            raise ValueError(
                f"frame {worst.frame} of episode {worst.episode} of {self._root} has the time stamp {worst.stamp:.4f} "
                f"s, expected {worst.frame / self._fps:.4f} s: LeRobot would show a policy another picture of the "
                "video than the one at this place; correct the column `timestamp`, record the dataset anew, or leave "
                f"out the episodes of which this is true ({shortened(sorted(worst.episodes))}) with "
                "lerobot-edit-dataset --operation.type=delete_episodes"
            )
        if self._tolerance_s is not None:
            self._require_even_steps(self._tolerance_s)

    def _require_rate(self) -> None:
        usual = self._median_step()
        if not abs(usual * self._fps - 1) <= _RATE_TOLERANCE:
            rate = f"{1 / usual:.4g} frames a second" if usual > 0 else "no time from frame to frame"
            raise ValueError(
                f"meta/info.json of {self._root} says fps={self._fps:g}, the column `timestamp` shows {rate}; correct "
                "the one that is wrong, since offsets in seconds become frames by fps"
            )

    def _median_step(self) -> float:
        """Median time between two frames in seconds, up to the width of a bin; NaN if a time stamp is."""
        if self._has_nan:
            return float("nan")
        upto, total = self._count.cumsum(), int(self._count.sum())
        middle = np.searchsorted(upto, [(total - 1) // 2, total // 2], side="right")
        return float((self._sum[middle] / self._count[middle]).mean())

    def _require_even_steps(self, tolerance_s: float) -> None:
        rounding = np.spacing(np.float32(self._largest))  # time stamps are stored as float32
        late = self._latest
        if not late <= tolerance_s + 2 * rounding:
            advice = f"if that does no harm, set --tolerance_s={late * 1.1:.2g} here and in lerobot-train"
            if self._has_videos and late * 1.1 > self._half_slot:  # such a tolerance could hide another picture
                advice = "correct the column `timestamp`, or record the dataset anew"
            raise ValueError(
                f"the time stamps of {self._root} are rough: a frame comes up to {late:.4g} s off 1/fps, "
                f"tolerance_s={tolerance_s:g} allows less; {advice}"
            )


class _Off:
    """The first of the frames whose time stamp is furthest from that of its number."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.episodes: set[int] = set()
        """Episodes in which a time stamp is off by more than `limit_s`."""
        self.seconds = 0.0
        self.frame = self.episode = 0
        self.stamp = 0.0

    def add(
        self,
        off: Float[np.ndarray, " f"],
        episode: Int[np.ndarray, " f"],
        frame: Int[np.ndarray, " f"],
        stamp: Float[np.ndarray, " f"],
    ) -> None:
        """Take the next rows, with the difference `off` of their time stamps in seconds; NaN counts as the largest."""
        self.episodes.update(np.unique(episode[~(off <= self._limit_s)]).tolist())
        row = int(off.argmax())
        if not np.isnan(self.seconds) and not off[row] <= self.seconds:
            self.seconds, self.stamp = float(off[row]), float(stamp[row])
            self.frame, self.episode = int(frame[row]), int(episode[row])
