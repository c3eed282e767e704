"""Rollout videos of the report: a montage of all tasks, and small copies that are embedded in the page."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from hlrp.storage.files import new_file

_ENCODERS = {
    "libx264": {"crf": "22", "preset": "veryfast"},
    "libopenh264": {},
    "libvpx-vp9": {"crf": "32", "b:v": "0"},
}
"""Options of video encoders, in order of preference; which of them exist depends on how PyAV was built. Browsers play
all of them in an mp4. The first two write H.264."""

_TILE = 256
"""Height of a rollout in the montage, in pixels; smaller videos are enlarged, so that the caption stays readable."""
_CAPTION = 30
"""Height of the caption above a rollout, in pixels."""
_COLUMNS = 4
"""Largest number of rollouts side by side."""


def montage(videos: Mapping[str, Path], output: Path | str) -> Path:
    """Tile videos, four in a row, with their labels above. A shorter video holds its last frame until the longest ends.

    Args:
        videos: Videos by label, such as rollouts by task.
        output: The mp4 to write (H.264 where PyAV has an encoder for it, yuv420p); replaced if it exists.

    Returns:
        `output`.

    Raises:
        FileNotFoundError: If a video does not exist.
        ValueError: If there is no video, one has no frames, or their frame rates differ.
    """
    if not videos:
        raise ValueError("expected at least one video to tile, got none")
    tiles, rates = [], {}
    for label, path in videos.items():
        frames, rates[label] = read_video(path)
        tiles.append(_captioned(label, frames))
    size = _even(max(tile[0].shape[1] for tile in tiles)), _even(tiles[0][0].shape[0])
    columns = min(len(tiles), _COLUMNS)
    rows = -(-len(tiles) // columns)
    with _new_video(Path(output), _only_rate(rates), width=columns * size[0], height=rows * size[1]) as add:
        for time in range(max(len(tile) for tile in tiles)):
            canvas = np.full((rows * size[1], columns * size[0], 3), 255, dtype=np.uint8)
            for place, tile in enumerate(tiles):
                frame = tile[min(time, len(tile) - 1)]  # the last frame, until the longest video ends
                top, left = place // columns * size[1], place % columns * size[0]
                left += (size[0] - frame.shape[1]) // 2
                canvas[top : top + frame.shape[0], left : left + frame.shape[1]] = frame
            add(canvas)
    return Path(output)


def _only_rate(rates: Mapping[str, Fraction]) -> Fraction:
    """Return the frame rate that all videos share; raise a ValueError if they differ."""
    if len(set(rates.values())) > 1:
        listed = ", ".join(f"{label} {float(rate):g} Hz" for label, rate in rates.items())
        raise ValueError(f"expected videos of one frame rate, got {listed}; tile them separately")
    return next(iter(rates.values()))


def video_data_uri(path: Path | str, *, max_bytes: int = 300_000) -> str:
    """Return an mp4 video as a `data:` URI, for a page without external files.

    Args:
        path: The video.
        max_bytes: Size up to which the file is embedded as it is. A larger file is encoded again, in up to four ever
            smaller and coarser copies; if none is small enough, the smallest is embedded.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ValueError: If the video has no frames and must be encoded again.
    """
    content = _content(path)
    if len(content) > max_bytes:
        content = _shrunk(path, max_bytes)
    return f"data:video/mp4;base64,{base64.b64encode(content).decode()}"


def read_video(path: Path | str) -> tuple[list[UInt8[ndarray, "h w 3"]], Fraction]:
    """Return all frames of a short video, RGB HWC in [0, 255], and its frame rate in Hz.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ValueError: If the file holds no video frames.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"the video {path} does not exist")
    with av.open(str(path)) as container:
        frames, rate = [], None
        if container.streams.video:
            rate = container.streams.video[0].average_rate
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    if not frames or rate is None:
        raise ValueError(f"{path} holds no video frames; expected an mp4 of one rollout")
    return frames, rate


def _content(path: Path | str) -> bytes:
    if not Path(path).is_file():
        raise FileNotFoundError(f"the video {path} does not exist")
    return Path(path).read_bytes()


def _shrunk(path: Path | str, max_bytes: int) -> bytes:
    frames, rate = read_video(path)
    return small_video(frames, rate, max_bytes=max_bytes)


def small_video(frames: Sequence[UInt8[ndarray, "h w 3"]], rate: Fraction, *, max_bytes: int) -> bytes:
    """Encode frames, RGB HWC in [0, 255], as an mp4 in the best of four sizes and qualities that is small enough; if
    none is, in the smallest.

    Args:
        frames: Frames of one size, one or more.
        rate: Frame rate, in Hz.
        max_bytes: Size up to which the file counts as small enough.
    """
    content = b""
    with tempfile.TemporaryDirectory() as scratch:
        # Side of the copy in pixels, and the encoder's quality: a larger crf is a smaller and coarser file.
        for longest, crf in ((480, 26), (360, 28), (256, 30), (160, 34)):
            scale = min(1.0, longest / max(frames[0].shape[:2]))
            height, width = (max(_even(round(side * scale)), 2) for side in frames[0].shape[:2])
            small = Path(scratch) / "small.mp4"
            with _new_video(small, rate, width=width, height=height, crf=crf) as add:
                for frame in frames:
                    add(np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX)))
            content = small.read_bytes()
            if len(content) <= max_bytes:
                break
    return content


def _captioned(label: str, frames: list[UInt8[ndarray, "h w 3"]]) -> list[UInt8[ndarray, "th tw 3"]]:
    """Scale frames to the height `_TILE` and put a white strip with the label above; (th, tw) is the size of both."""
    height, width = frames[0].shape[:2]
    width = round(width * _TILE / height)
    strip = Image.new("RGB", (width, _CAPTION), "white")
    size = 16.0
    font = ImageFont.load_default(size)
    while size > 7 and font.getlength(label) > width - 8:
        size -= 1
        font = ImageFont.load_default(size)
    ImageDraw.Draw(strip).text((width / 2, _CAPTION / 2), label, fill="#24292F", font=font, anchor="mm")
    caption = np.asarray(strip)
    enlarge = Image.Resampling.NEAREST if _TILE % height == 0 else Image.Resampling.BICUBIC
    return [
        np.concatenate([caption, np.asarray(Image.fromarray(frame).resize((width, _TILE), enlarge))])
        for frame in frames
    ]


def _even(pixels: int) -> int:
    """Round up to an even number: yuv420p stores colour for blocks of 2x2 pixels, so both sides must be even."""
    return pixels + pixels % 2


def _encoder() -> str:
    for name in _ENCODERS:
        try:
            av.Codec(name, "w")
        except UnknownCodecError:
            continue
        return name
    raise ValueError(f"this PyAV has none of the encoders {', '.join(_ENCODERS)}; install the `av` wheel from PyPI")


@contextmanager
def _new_video(
    path: Path, fps: Fraction, *, width: int, height: int, crf: int | None = None
) -> Iterator[Callable[[UInt8[ndarray, "h w 3"]], None]]:
    """Yield a function that appends a frame to a new video; the complete file appears at `path` when the block ends."""
    name = _encoder()
    options = _ENCODERS[name] | ({"crf": str(crf)} if crf is not None and "crf" in _ENCODERS[name] else {})
    # The index goes to the front, so that a browser can start before it has read the whole file.
    index_first = {"movflags": "+faststart"}
    with new_file(path) as scratch, av.open(str(scratch), "w", format="mp4", options=index_first) as container:
        stream = container.add_stream(name, rate=fps, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"

        def add(frame: UInt8[ndarray, "h w 3"]) -> None:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

        yield add
        container.mux(stream.encode())
