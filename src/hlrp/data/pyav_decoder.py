"""Frames of one video file by time, decoded with PyAV, as a player shows them.

Frames that an edit list hides are left out, the rotation or reflection that the file asks for is applied, and colours
follow the matrix and range that the file names. PyAV brings its own FFmpeg, so that every machine decodes alike.

Shapes: m times asked for, h and w pixels of a frame in its file, y and x pixels after resizing. Pixels are uint8 RGB.
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

from hlrp.data.pixels import resize

_SEEK_S = 2.0
"""The decoder seeks over a longer gap and decodes through a shorter one."""
_GLITCH_S = 0.5
"""Seconds by which time stamps may step back: containers that stamp few frames are off by some where they do."""
_LOST_S = 0.5
"""Seconds of pictures that may be lost at a film's end, where it was cut between pictures that need each other."""


def open_video(path: Path | str) -> tuple[InputContainer, av.VideoStream]:
    """Open the video file `path` and the stream that a player shows, which is never a cover picture.

    Raises:
        ValueError: If the file has no moving pictures.
        FFmpegError: If it is not a readable media file.
    """
    container = av.open(str(path))
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream) or Disposition.attached_pic in stream.disposition:
        container.close()
        raise ValueError(f"{path} has no moving pictures; remove it from the folder")
    stream.codec_context.thread_count = 1  # what reads many files has processes for it, and those are forked
    return container, stream


class PyAVDecoder:
    """Frames of one file by the time at which they are on screen.

    Args:
        path: The video file.
        last_s: When its last frame starts, in seconds, where that is known; a file that ends earlier was cut short.

    Raises:
        ValueError: If the file has no moving pictures.
        FFmpegError: If it is not a readable media file.
    """

    def __init__(self, path: Path | str, *, last_s: float | None = None) -> None:
        self._path = path
        self._last_s = -math.inf if last_s is None else last_s
        self._reformatter = VideoReformatter()
        self._shown: av.VideoFrame | None = None
        """Frame on screen at the last time asked for; None where the next time must be sought."""
        self._ahead: av.VideoFrame | None = None
        """Frame after `_shown`; None at the end of the file."""
        self._restart()

    def frames_at(
        self, seconds: Float64[Tensor, " m"], size: tuple[int, int]
    ) -> tuple[UInt8[Tensor, "m 3 y x"], Float64[Tensor, " m"]]:
        """The last frame that starts at or before each of `seconds`, or the file's first where none does.

        Args:
            seconds: Times that increase.
            size: Height and width (y, x) to resize to.

        Returns:
            The frames, and when each of them starts, in seconds.

        Raises:
            RuntimeError: If nothing can be decoded there, the file ends too early, or its time stamps run backwards.
            FFmpegError: If the file is damaged there.
        """
        pixels = torch.empty(len(seconds), 3, *size, dtype=torch.uint8)
        starts = torch.empty(len(seconds), dtype=torch.float64)
        for row, wanted in enumerate(seconds.tolist()):
            frame = self._frame_at(wanted)
            pixels[row] = resize(self._pixels(frame), size)
            starts[row] = frame_time(frame)
        return pixels, starts

    def first_times(self, count: int) -> list[float]:
        """When the first `count` frames that can be decoded start, in seconds, in the order in which they are shown."""
        self._shown = None
        self._restart()
        return [frame_time(frame) for frame in islice(self._frames, count)]

    def _frame_at(self, wanted: float) -> av.VideoFrame:
        shown, ahead = self._shown, self._ahead
        self._shown = None  # where decoding fails below, the next call seeks again
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
        """The first frame that can be decoded from a key frame at or before `wanted` on.

        Containers without an index, such as MPEG transport streams, seek to about the right place. Where the first
        frame found starts after `wanted`, the search begins further back, at the latest at the file's beginning.
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
            if first is not None and (found := frame_time(first)) <= wanted:
                # Pictures shown before a key frame and stored after it need others that the decoder has not seen.
                self._frames = dropwhile(lambda frame: frame_time(frame) < found, self._frames)
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
        """Frames in the order in which they are shown, from the place on to which the container was moved."""
        is_decoding = False
        for packet in self._container.demux(self._stream):
            try:
                for frame in packet.decode():
                    is_decoding = True
                    yield frame  # pyright: ignore[reportReturnType]
            except InvalidDataError:
                if is_decoding:
                    raise
                # Packets before the first key frame refer to others that are not there.

    def _pixels(self, frame: av.VideoFrame) -> UInt8[Tensor, "3 h w"]:
        """RGB pixels of `frame`, the right way up."""
        rgb = self._reformatter.reformat(
            frame,
            format="rgb24",
            # PyAV follows the matrix and range of `frame` only where those of the result are named, and differ. Neither
            # matters to RGB itself.
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


def frame_time(frame: av.VideoFrame) -> float:
    """When `frame` starts, in seconds; from its place in decoding order where the container has no other time.

    Raises:
        RuntimeError: If it has neither.
    """
    stamp = frame.dts if frame.pts is None else frame.pts
    if stamp is None or frame.time_base is None:
        raise RuntimeError("it has pictures without a time stamp")
    return float(stamp * frame.time_base)


def _upright(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Turn and reflect a `picture` (height, width, 3) by quarter turns, as its display matrix (3, 3) says.

    The matrix maps a row vector (column, row) of the stored picture to its place on screen.
    """
    (a, b), (c, d) = matrix[:2, :2].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture = picture.swapaxes(0, 1)
        a, d = c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
