"""Decode frames of one video file by time with PyAV, as a video player shows them.

Frames hidden by an edit list are left out, the file's rotation or reflection is applied, and colours are converted by
the matrix and range named in the file. PyAV includes its own FFmpeg, so that all machines decode alike.

Shapes: wanted the requested times, y x rows and columns after resizing. Pixels are uint8 RGB.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import dropwhile, islice
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from jaxtyping import Float64, UInt8
from torch import Tensor

from hlrp.pixels import resize

_SEEK_S = 2.0
"""Longest gap to the next requested frame, in seconds, that is decoded; longer gaps are skipped by seeking."""
_GLITCH_S = 0.5
"""Largest accepted step back between time stamps, in seconds; such steps occur if only some frames have time stamps."""
_LOST_S = 0.5
"""Largest accepted loss at the end of a film, in seconds: the last pictures may refer to others that were cut off."""


def open_video(path: Path | str) -> tuple[InputContainer, av.VideoStream]:
    """Open the video file `path` and choose the video stream that a player shows, but never a cover picture.

    Raises:
        ValueError: If the file has no moving pictures.
        FFmpegError: If it is not a readable media file.
    """
    container = av.open(str(path))
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream) or Disposition.attached_pic in stream.disposition:
        container.close()
        raise ValueError(f"{path} has no moving pictures; remove it from the folder")
    stream.codec_context.thread_count = 1  # worker processes that read files are forked, and threads survive no fork
    return container, stream


class PyAVDecoder:
    """Decoder of one video file that returns the frames on screen at given times.

    Args:
        path: The video file.
        last_s: Start time of the last frame, in seconds, if known; a file that ends earlier was cut short.

    Raises:
        ValueError: If the file has no moving pictures.
        FFmpegError: If it is not a readable media file.
    """

    def __init__(self, path: Path | str, *, last_s: float | None = None) -> None:
        self._path = path
        self._last_s = -math.inf if last_s is None else last_s
        self._reformatter = VideoReformatter()
        self._shown: av.VideoFrame | None = None
        """Frame on screen at the last requested time; None if the next request must seek."""
        self._ahead: av.VideoFrame | None = None
        """Frame after `_shown`; None at the end of the file."""
        self._restart()

    def frames_at(
        self, seconds: Float64[Tensor, " wanted"], size: tuple[int, int], *, crop: bool = False
    ) -> tuple[UInt8[Tensor, "wanted 3 y x"], Float64[Tensor, " wanted"]]:
        """Decode the frames on screen at `seconds`: the last frame that starts at or before each time, else the first.

        Args:
            seconds: Increasing times, in seconds.
            size: Height and width (y, x) to which frames are resized.
            crop: Crop frames to the shape of `size` instead of stretching them.

        Returns:
            The frames, and the start time of each of them, in seconds.

        Raises:
            RuntimeError: If nothing can be decoded there, the file ends too early, or its time stamps run backwards.
            FFmpegError: If the file is damaged there.
        """
        pixels = torch.empty(len(seconds), 3, *size, dtype=torch.uint8)
        starts = torch.empty(len(seconds), dtype=torch.float64)
        for row, wanted in enumerate(seconds.tolist()):
            frame = self._frame_at(wanted)
            pixels[row] = resize(self._pixels(frame), size, crop=crop)
            starts[row] = frame_time(frame)
        return pixels, starts

    def first_times(self, count: int) -> list[float]:
        """Start times, in seconds, of the first `count` frames that can be decoded, in display order."""
        self._shown = None
        self._restart()
        return [frame_time(frame) for frame in islice(self._frames, count)]

    def picture_size(self) -> tuple[int, int]:
        """Height and width of the first picture in pixels, as a player shows it."""
        self._shown = None
        self._restart()
        height, width = self._pixels(next(self._frames)).shape[-2:]
        return height, width

    def _frame_at(self, wanted: float) -> av.VideoFrame:
        shown, ahead = self._shown, self._ahead
        self._shown = None  # if decoding fails below, the next call seeks again
        if shown is None or frame_time(shown) > wanted or (ahead and wanted - frame_time(ahead) > _SEEK_S):
            shown = self._seek(wanted)
            ahead = next(self._frames, None)
        while ahead is not None and frame_time(ahead) <= wanted:
            if frame_time(ahead) < frame_time(shown) - _GLITCH_S:
                raise RuntimeError("its time stamps run backwards")
            shown, ahead = ahead, next(self._frames, None)
        if ahead is None and frame_time(shown) < self._last_s - _LOST_S:
            raise RuntimeError(f"its pictures end at {frame_time(shown):.2f} s")
        self._shown, self._ahead = shown, ahead
        return shown

    def _seek(self, wanted: float) -> av.VideoFrame:
        """Seek to a key frame at or before `wanted` (seconds), and return the first frame that can be decoded there.

        Containers without an index, such as MPEG transport streams, seek only roughly. If the first frame found starts
        after `wanted`, the seek is repeated further back, finally from the start of the file.
        """
        base = self._stream.time_base
        assert base is not None, "a video stream has a time base"
        begin = float((self._stream.start_time or 0) * base)
        back = 0.0
        while wanted - back > begin:
            try:
                self._container.seek(round((wanted - back) / base), stream=self._stream)
            except FFmpegError:  # this container cannot seek
                break
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is not None and frame_time(first) <= wanted:
                # Drop pictures stored after the key frame but shown before it: they refer to pictures not decoded here.
                self._frames = _from_time_on(frame_time(first), self._frames)
                return first
            back = max(2 * back, _SEEK_S)
        self._restart()
        first = next(self._frames, None)
        if first is None:
            raise RuntimeError("no picture can be decoded")
        return first

    def _restart(self) -> None:
        self._container, self._stream = open_video(self._path)
        self._frames = self._decode()

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Decode frames in display order, from the current position of the container on."""
        is_decoding = False
        for packet in self._container.demux(self._stream):
            try:
                for frame in packet.decode():
                    is_decoding = True
                    yield frame  # pyright: ignore[reportReturnType]
            except InvalidDataError:
                if is_decoding:
                    raise
                # Packets before the first key frame refer to missing pictures, and are skipped.

    def _pixels(self, frame: av.VideoFrame) -> UInt8[Tensor, "3 h w"]:
        """RGB pixels of `frame`, the right way up."""
        rgb = self._reformatter.reformat(
            frame,
            format="rgb24",
            # PyAV uses the colour matrix and range of `frame` only if those of the result are given and differ. RGB
            # itself has neither, so that the two values below do not matter.
            dst_colorspace=Colorspace.ITU601,
            src_color_range=frame.color_range,
            dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.BICUBIC,  # of chroma: what FFmpeg's own programs and torchcodec use
        )
        matrix = frame.side_data.get("DISPLAYMATRIX")
        pixels = rgb.to_ndarray()
        if matrix is not None:
            pixels = np.ascontiguousarray(_upright(pixels, np.frombuffer(bytes(matrix), np.int32).reshape(3, 3)))
        return torch.from_numpy(pixels).permute(2, 0, 1)


def _from_time_on(start: float, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Drop the first frames as long as they start before `start`, in seconds."""
    return dropwhile(lambda frame: frame_time(frame) < start, frames)


def frame_time(frame: av.VideoFrame) -> float:
    """Start time of `frame` in seconds: its display time stamp, or its decoding time stamp if it has no other.

    Raises:
        RuntimeError: If the frame has neither time stamp.
    """
    stamp = frame.dts if frame.pts is None else frame.pts
    if stamp is None or frame.time_base is None:
        raise RuntimeError("it has pictures without a time stamp")
    return float(stamp * frame.time_base)


def _upright(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Rotate by quarter turns and reflect a `picture` (height, width, 3) by its display matrix (3, 3).

    The matrix maps a row vector (column, row) of the stored picture to its position on screen.
    """
    (a, b), (c, d) = matrix[:2, :2].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture = picture.swapaxes(0, 1)
        a, d = c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
