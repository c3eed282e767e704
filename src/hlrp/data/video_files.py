"""Random access to the frames of video files, which are decoded in every read.

A frame is looked up by the middle of the time during which it is on screen, so that time stamps rounded by the
container (to milliseconds in WebM) do not matter. Frames of one read are decoded together, in the order of the file and
each only once.

Shapes: wanted the requested frames, here those of them in one file, y x rows and columns after resizing. Pixels are
uint8 RGB.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from av.error import FFmpegError
from jaxtyping import Float64, Int, UInt8
from torch import Tensor

from hlrp.data.pyav_decoder import PyAVDecoder
from hlrp.pixels import resize, take

try:
    from torchcodec.decoders import VideoDecoder
except (ImportError, OSError, RuntimeError):  # no wheel for this platform, or no FFmpeg libraries on this machine
    VideoDecoder = None

_DECODE_TOGETHER = 64
"""Largest number of frames in one decoder call: enough that seeking hardly costs, few enough for memory."""
_OPEN_FILES = 32
"""Largest number of decoders that a process keeps open; each holds a few frames at full resolution in memory."""


@runtime_checkable
class _Decoder(Protocol):
    def frames_at(
        self, seconds: Float64[Tensor, " wanted"], size: tuple[int, int], *, crop: bool
    ) -> tuple[UInt8[Tensor, "wanted 3 y x"], Float64[Tensor, " wanted"]]:
        """Frames on screen at the increasing times `seconds`, and the start time of each of these frames."""
        ...


class VideoFiles:
    """Frames by absolute index, read from video files.

    Args:
        files: The video files.
        bounds: First frame of every episode, and one after its last frame. Only episodes are kept in memory, so that
            its use does not grow with the number of frames.
        file: For each episode, the number of its file in `files`.
        start_s: Start time of each episode in its file, in seconds; increasing within a file.
        fps: Frame rate, in Hz: frame i of an episode starts i/fps after the episode.
        image_size: Height and width to which frames are resized.
        crop: Crop frames to the shape of `image_size` instead of stretching them.
        constant_rate: Whether frames are evenly spaced in time, as in LeRobot's files. Such files are decoded with
            torchcodec if it is available, as in LeRobot; all others with PyAV.
        tolerance_s: Largest difference between the requested time and the time stamp of the decoded frame, in
            seconds; None to accept whatever frame is on screen at that time.
        last_s: Start time of the last frame of each file, in seconds, if known; a file that ends earlier was cut short.
    """

    def __init__(
        self,
        files: Sequence[Path],
        bounds: Int[Tensor, "e 2"],
        file: Int[Tensor, " e"],
        start_s: Float64[Tensor, " e"],
        *,
        fps: float,
        image_size: tuple[int, int],
        crop: bool = False,
        constant_rate: bool,
        tolerance_s: float | None,
        last_s: Sequence[float] | None = None,
    ) -> None:
        self._files = list(files)
        self._first, self._end = (side.contiguous() for side in bounds.unbind(dim=1))
        self.file = file
        """Number of the file of each episode."""
        self._start_s = start_s
        self._fps = fps
        self._half_slot = 0.5 / fps
        self._size = image_size
        self._crop = crop
        self._constant_rate = constant_rate
        self._tolerance_s = tolerance_s
        self._last_s = dict(zip(self._files, last_s, strict=True)) if last_s is not None else {}

    def __len__(self) -> int:
        return int(self._end[-1])

    def resized(self, image_size: tuple[int, int]) -> VideoFiles:
        """The same frames at another height and width."""
        other = copy(self)
        other._size = image_size
        return other

    def read(self, index: Int[Tensor, "b t"]) -> UInt8[Tensor, "b t 3 h w"]:
        """Frames at `index`.

        Raises:
            ValueError: If a file cannot be decoded, or its time stamps are not those expected.
        """
        wanted, place = index.unique(return_inverse=True)
        frames = torch.empty(len(wanted), 3, *self._size, dtype=torch.uint8)
        for path, rows, seconds in self.places(wanted):
            for batch, times in zip(rows.split(_DECODE_TOGETHER), seconds.split(_DECODE_TOGETHER), strict=True):
                frames.index_copy_(0, batch, self._decode(path, times))
        return take(frames, place)

    def places(
        self, index: Int[Tensor, " wanted"]
    ) -> Iterator[tuple[Path, Int[Tensor, " here"], Float64[Tensor, " here"]]]:
        """For each file with frames of `index`: its path, positions of these frames in `index`, and the times (middle
        of each frame, in seconds) at which they are looked up."""
        episode = torch.searchsorted(self._end, index, right=True)
        seconds = self._start_s[episode] + (index - self._first[episode]).double() / self._fps + self._half_slot
        file = self.file[episode]
        for number in file.unique().tolist():
            rows = (file == number).nonzero()[:, 0]
            yield self._files[number], rows, seconds[rows]

    def _decode(self, path: Path, seconds: Float64[Tensor, " wanted"]) -> UInt8[Tensor, "wanted 3 h w"]:
        """Decode the frames on screen at the increasing times `seconds`."""
        try:
            decoder = _open(str(path), self._constant_rate, self._last_s.get(path), os.getpid())
            frames, starts = decoder.frames_at(seconds, self._size, crop=self._crop)
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
    """Open a decoder for the file `path`, or return the open one of this `process` (its id).

    The process id is an argument so that a forked process opens its own decoder: the position in a file that was opened
    before the fork would be shared with the parent. torchcodec 0.11 decodes LeRobot's files only: if an edit list hides
    a key frame it returns a later picture than requested, and it cannot seek in a transport stream.
    """
    if VideoDecoder is None or not constant_rate:
        return PyAVDecoder(path, last_s=last_s)
    return _TorchCodecDecoder(path)


def close_files() -> None:
    """Close all video files that this process has open, such as before worker processes are forked."""
    _open.cache_clear()


class _TorchCodecDecoder:
    """Decoder of a video file with constant frame rate, by torchcodec."""

    def __init__(self, path: str) -> None:
        assert VideoDecoder is not None, "checked by the caller"
        self._decoder = VideoDecoder(path, seek_mode="approximate")

    def frames_at(
        self, seconds: Float64[Tensor, " wanted"], size: tuple[int, int], *, crop: bool
    ) -> tuple[UInt8[Tensor, "wanted 3 y x"], Float64[Tensor, " wanted"]]:
        """Frames on screen at the increasing times `seconds`, and the start time of each of these frames."""
        played = self._decoder.get_frames_played_at(seconds)
        return resize(played.data, size, crop=crop), played.pts_seconds.double()
