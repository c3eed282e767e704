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
from typing import Protocol, runtime_checkable

import torch
from av.error import FFmpegError
from jaxtyping import Float64, Int, UInt8
from torch import Tensor

from hlrp.data.pixels import resize, take
from hlrp.data.pyav_decoder import PyAVDecoder

try:
    from torchcodec.decoders import VideoDecoder
except (ImportError, OSError, RuntimeError):  # no wheel for this platform, or no FFmpeg libraries on this machine
    VideoDecoder = None

_DECODE_TOGETHER = 64
"""Frames of one decoder call: amortises a seek and bounds memory at full resolution."""
_OPEN_FILES = 32
"""Decoders kept open in a process; one holds a few frames at full resolution."""


@runtime_checkable
class _Decoder(Protocol):
    def frames_at(
        self, seconds: Float64[Tensor, " m"], size: tuple[int, int]
    ) -> tuple[UInt8[Tensor, "m 3 y x"], Float64[Tensor, " m"]]:
        """What is on screen at `seconds`, which increase, and when each of these frames starts."""
        ...


class VideoFiles:
    """Frames by absolute index, read from video files.

    Args:
        files: The video files.
        file: Which of them holds each frame.
        seconds: When each frame starts in its file; increasing within a file.
        fps: Frames per second at which `seconds` proceeds.
        image_size: Height and width to resize to.
        constant_rate: Whether frames of a file are evenly spaced, as LeRobot writes them. Such files are decoded with
            torchcodec where it loads, as LeRobot does; all others with PyAV.
        tolerance_s: Largest difference from `seconds` to a frame's own time stamp; None where the frames on screen at
            that time are meant, whenever they started.
        last_s: When the last frame of each file starts, in seconds, where that is known; a file that ends earlier was
            cut short.
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
        last_s: Sequence[float] | None = None,
    ) -> None:
        self._files = list(files)
        self._file = file
        self._seconds = seconds
        self._half_slot = 0.5 / fps
        self._size = image_size
        self._constant_rate = constant_rate
        self._tolerance_s = tolerance_s
        self._last_s = dict(zip(self._files, last_s, strict=True)) if last_s is not None else {}

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
                frames.index_copy_(0, some, self._decode(path, times))
        return take(frames, place)

    def places(self, index: Int[Tensor, " m"]) -> Iterator[tuple[Path, Int[Tensor, " f"], Float64[Tensor, " f"]]]:
        """Every file that holds frames of `index`, which of them it holds, and the middle of each one's time."""
        file = self._file[index]
        for number in file.unique().tolist():
            rows = (file == number).nonzero()[:, 0]
            yield self._files[number], rows, self._seconds[index[rows]] + self._half_slot

    def _decode(self, path: Path, seconds: Float64[Tensor, " m"]) -> UInt8[Tensor, "m 3 h w"]:
        """What is on screen at `seconds`, which increase."""
        try:
            decoder = _open(str(path), self._constant_rate, self._last_s.get(path), os.getpid())
            frames, starts = decoder.frames_at(seconds, self._size)
        except (RuntimeError, IndexError, FFmpegError) as error:
            raise ValueError(
                f"{path} cannot be decoded between {seconds[0]:.2f} s and {seconds[-1]:.2f} s; it is cut short or "
                f"damaged, copy or encode it again ({error})"
            ) from error
        if self._tolerance_s is not None:
            late = (starts + self._half_slot - seconds).abs()
            if late.max() > self._tolerance_s:
                raise ValueError(
                    f"{path} has no frame at {seconds[late.argmax()]:.4f} s, the nearest is {late.max():.4f} s away; "
                    "the video and the dataset's metadata do not belong together, copy both again"
                )
        return frames


@lru_cache(maxsize=_OPEN_FILES)
def _open(path: str, constant_rate: bool, last_s: float | None, process: int) -> _Decoder:
    """Decoder of `path`. Each `process` opens its own: forked ones would share the place in the file.

    torchcodec 0.11 does not serve for other files than LeRobot's: where an edit list hides a key frame it returns a
    later picture than was asked for, and it cannot seek in a transport stream.
    """
    if VideoDecoder is None or not constant_rate:
        return PyAVDecoder(path, last_s=last_s)
    return _TorchCodecDecoder(path)


def close_files() -> None:
    """Close the files that this process has open: a pass over all of them is over, and workers are about to fork."""
    _open.cache_clear()


class _TorchCodecDecoder:
    """Frames of a file of constant rate, decoded with torchcodec."""

    def __init__(self, path: str) -> None:
        assert VideoDecoder is not None, "checked by the caller"
        self._decoder = VideoDecoder(path, seek_mode="approximate")

    def frames_at(
        self, seconds: Float64[Tensor, " m"], size: tuple[int, int]
    ) -> tuple[UInt8[Tensor, "m 3 y x"], Float64[Tensor, " m"]]:
        """What is on screen at `seconds`, which increase, and when each of these frames starts."""
        played = self._decoder.get_frames_played_at(seconds)
        return resize(played.data, size), played.pts_seconds.double()
