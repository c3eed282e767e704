"""Frames of video files by number, decoded when asked.

A frame is asked for by the middle of the time it is on screen, so that time stamps rounded by the container
(milliseconds in WebM) still find it. Frames asked for together are decoded together, in the order of the file and each
only once.

Shapes: n frames, b clips, t frames of a clip, m frames asked for, f of them in one file, h and w
pixels. Pixels are uint8 RGB.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import av
import torch
from av.error import FFmpegError
from jaxtyping import Float64, Int, UInt8
from torch import Tensor

from hlrp.data.pixels import resize, take

try:
    from torchcodec.decoders import VideoDecoder
except (ImportError, OSError, RuntimeError):  # no wheel for this platform, or no FFmpeg libraries on this machine
    VideoDecoder = None

_DECODE_TOGETHER = 64
"""Frames of one decoder call: amortises a seek and bounds memory at full resolution."""
_OPEN_FILES = 32
"""Decoders kept open in a process; one holds a few frames at full resolution."""
_SEEK_S = 2.0
"""PyAV seeks over a longer gap and decodes through a shorter one."""


class _Played(NamedTuple):
    data: UInt8[Tensor, "m 3 y x"]
    pts_seconds: Float64[Tensor, " m"]


@runtime_checkable
class _Decoder(Protocol):
    def get_frames_played_at(self, seconds: Float64[Tensor, " m"]) -> _Played: ...


class VideoFiles:
    """Frames by absolute index, read from video files.

    Args:
        files: The video files.
        file: Which of them holds each frame.
        seconds: When each frame starts in its file; increasing within a file.
        fps: Frames per second at which `seconds` proceeds.
        image_size: Height and width to resize to.
        constant_rate: Whether frames of a file are evenly spaced, so that none must be searched for.
        tolerance_s: Largest difference from `seconds` to a frame's own time stamp; None where the frames on screen at
            that time are meant, whenever they started.
    """

    def __init__(
        self,
        files: Sequence[Path],
        file: Int[Tensor, " n"],
        seconds: Float64[Tensor, " n"],
        *,
        fps: float,
        image_size: tuple[int, int],
        constant_rate: bool,
        tolerance_s: float | None,
    ) -> None:
        self._files = list(files)
        self._file = file
        self._seconds = seconds
        self._half_slot = 0.5 / fps
        self._size = image_size
        self._constant_rate = constant_rate
        self._tolerance_s = tolerance_s

    def __len__(self) -> int:
        return len(self._file)

    def read(self, index: Int[Tensor, "b t"]) -> UInt8[Tensor, "b t 3 h w"]:
        """Frames at `index`.

        Raises:
            ValueError: If a file cannot be decoded, or its time stamps are not those expected.
        """
        wanted, place = index.unique(return_inverse=True)
        frames = torch.empty(len(wanted), 3, *self._size, dtype=torch.uint8)
        for path, rows, seconds in self.places(wanted):
            for some, times in zip(rows.split(_DECODE_TOGETHER), seconds.split(_DECODE_TOGETHER), strict=True):
                frames.index_copy_(0, some, resize(self._decode(path, times), self._size))
        return take(frames, place)

    def places(self, index: Int[Tensor, " m"]) -> Iterator[tuple[Path, Int[Tensor, " f"], Float64[Tensor, " f"]]]:
        """Every file that holds frames of `index`, which of them it holds, and the middle of each one's time."""
        file = self._file[index]
        for number in file.unique().tolist():
            rows = (file == number).nonzero()[:, 0]
            yield self._files[number], rows, self._seconds[index[rows]] + self._half_slot

    def _decode(self, path: Path, seconds: Float64[Tensor, " m"]) -> UInt8[Tensor, "m 3 y x"]:
        """What is on screen at `seconds`, which increase."""
        try:
            played = _open(str(path), self._constant_rate, os.getpid()).get_frames_played_at(seconds)
        except (RuntimeError, IndexError, FFmpegError) as error:
            raise ValueError(
                f"{path} cannot be decoded between {seconds[0]:.2f} s and {seconds[-1]:.2f} s; it is cut short or "
                f"damaged, copy or encode it again ({error})"
            ) from error
        if self._tolerance_s is not None:
            late = (played.pts_seconds + self._half_slot - seconds).abs()
            if late.max() > self._tolerance_s:
                raise ValueError(
                    f"{path} has no frame at {seconds[late.argmax()]:.4f} s, the nearest is {late.max():.4f} s away; "
                    "the video and the dataset's metadata do not belong together, copy both again"
                )
        return played.data


@lru_cache(maxsize=_OPEN_FILES)
def _open(path: str, constant_rate: bool, process: int) -> _Decoder:
    """Decoder of `path`. Each `process` opens its own: forked ones would share the place in the file."""
    if VideoDecoder is None:
        return _PyAVDecoder(path)
    return VideoDecoder(path, seek_mode="approximate" if constant_rate else "exact")  # pyright: ignore[reportReturnType]


class _PyAVDecoder:
    """The same with PyAV, which brings its own FFmpeg: for machines where torchcodec does not load."""

    def __init__(self, path: str) -> None:
        self._container = av.open(path)
        self._stream = self._container.streams.video[0]

    def get_frames_played_at(self, seconds: Float64[Tensor, " m"]) -> _Played:
        """The last frame that starts at or before each of `seconds`, which increase."""
        pictures: list[UInt8[Tensor, "3 y x"]] = []
        starts: list[float] = []
        frames: Iterator[av.VideoFrame] = iter(())
        shown = ahead = None
        for wanted in seconds.tolist():
            if shown is None or ahead is None or wanted - ahead.time > _SEEK_S:
                self._container.seek(round(wanted / self._stream.time_base), stream=self._stream)  # pyright: ignore[reportOptionalOperand, reportArgumentType]
                frames = self._container.decode(self._stream)
                shown = ahead = next(frames, None)
                if shown is None:
                    raise RuntimeError("no frame there")
            while ahead is not None and ahead.time <= wanted:
                shown, ahead = ahead, next(frames, None)
            pictures.append(torch.from_numpy(shown.to_ndarray(format="rgb24")).permute(2, 0, 1))
            starts.append(shown.time)
        return _Played(torch.stack(pictures), torch.tensor(starts, dtype=torch.float64))
