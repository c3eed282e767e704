"""Real video files small enough for a test: every frame has one brightness, which tells its number."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import Colorspace

STEP = 8
"""Brightness from one frame to the next."""
_CODECS = {
    ".mp4": "libx264",
    ".m4v": "libx264",
    ".webm": "libvpx-vp9",
    ".mkv": "libx264",
    ".mov": "libx264",
    ".avi": "mpeg4",
    ".ts": "libx264",
    ".flv": "flv",
    ".wmv": "wmv2",
    ".gif": "gif",
    ".mpg": "mpeg2video",
}
_PIXEL_FORMATS = {"gif": "rgb8", "png": "rgb24"}


def write_video(path: Path, num_frames: int, *, size: int = 48, noise: float = 0.0, **coding: Any) -> Path:
    """Write frames of brightness 0, 8, 16, …, with up to `noise` brightness steps of noise; see `write_pictures`."""
    draw = np.random.default_rng(0)
    pictures = [
        np.full((size, size, 3), STEP * number) + noise * STEP * draw.uniform(-1, 1, (size, size, 1))
        for number in range(num_frames)
    ]
    return write_pictures(path, [picture.clip(0, 255).astype(np.uint8) for picture in pictures], **coding)


def write_pictures(
    path: Path,
    pictures: Sequence[np.ndarray],
    *,
    fps: int = 10,
    stamps: Sequence[float] | None = None,
    codec: str | None = None,
    options: dict[str, str] | None = None,
    colour_matrix: Colorspace | None = None,
) -> Path:
    """Write `pictures`, uint8 RGB (height, width, 3), at `fps`, or at `stamps` in seconds.

    `codec` defaults to one that is usual for the container, `colour_matrix` to what a file without one means.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = codec or _CODECS[path.suffix.lower()]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = _PIXEL_FORMATS.get(codec, "yuv420p")
        if colour_matrix is not None:
            stream.codec_context.colorspace = colour_matrix
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if colour_matrix is not None:
                frame = frame.reformat(format="yuv420p", dst_colorspace=colour_matrix)
            if stamps is not None:
                frame.pts, frame.time_base = round(1000 * stamps[number]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def add_cover(source: Path, target: Path) -> Path:
    """Copy a film with a cover picture before it, as music and film shops write them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(source)) as film, av.open(str(target), "w") as covered:
        cover = covered.add_stream("mjpeg", rate=1)
        assert isinstance(cover, av.VideoStream)
        cover.width, cover.height, cover.pix_fmt = 640, 480, "yuvj420p"
        cover.disposition = Disposition.attached_pic.value  # pyright: ignore[reportAttributeAccessIssue]
        stream = film.streams.video[0]
        copy = covered.add_stream_from_template(stream)
        covered.mux(cover.encode(av.VideoFrame(640, 480, "yuvj420p")))
        covered.mux(cover.encode())
        for packet in film.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                covered.mux(packet)
    return target


def trim_without_encoding(source: Path, target: Path, *, seconds: float) -> Path:
    """Copy the packets of `source`, so that the film begins `seconds` later: an edit list hides what comes before."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(source)) as film, av.open(str(target), "w") as trimmed:
        stream = film.streams.video[0]
        copy = trimmed.add_stream_from_template(stream)
        for packet in film.demux(stream):
            if packet.dts is None or packet.pts is None:
                continue
            assert stream.time_base is not None
            packet.pts -= round(seconds / stream.time_base)
            packet.dts -= round(seconds / stream.time_base)
            packet.stream = copy
            trimmed.mux(packet)
    return target


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write into an mp4 that a player maps column x and row y to (a*x + c*y, b*x + d*y)."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44  # after the name, version, times, identity, duration, layer and volume
    values = [65536 * a, 65536 * b, 0, 65536 * c, 65536 * d, 0, 0, 0, 1 << 30]
    struct.pack_into(">9i", content, place, *values)
    path.write_bytes(content)
    return path
