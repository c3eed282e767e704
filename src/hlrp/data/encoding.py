"""Encode frames as LeRobot stores them: as a video file, or as single images.

Shapes: f frames of one episode. Pixels are uint8 RGB.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import Int, UInt8
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.compute_stats import auto_downsample_height_width, get_feature_stats, sample_indices
from PIL import Image
from torch import Tensor

from hlrp.data.frames import FrameSource

_READ_TOGETHER = 64
"""Frames that are decoded at once."""


class PictureStatistics:
    """Pixel statistics of an episode, from as many frames, reduced to the same size, as LeRobot's recorder uses."""

    def __init__(self, num_frames: int) -> None:
        self._wanted = set(sample_indices(num_frames))
        self._seen = 0
        self._sampled: list[np.ndarray] = []

    def add(self, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        """Take the next frame into account."""
        if self._seen in self._wanted:
            self._sampled.append(auto_downsample_height_width(picture.transpose(2, 0, 1)))
        self._seen += 1

    def result(self) -> dict[str, np.ndarray]:
        """Statistics of each colour, shape (3, 1, 1), of pixels in [0, 1]."""
        found = get_feature_stats(np.stack(self._sampled), axis=(0, 2, 3), keepdims=True)
        return {name: value if name == "count" else value[0] / 255 for name, value in found.items()}


def pictures(frames: FrameSource, index: Int[Tensor, " f"]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """The frames at `index`, one after the other, decoded a few at a time."""
    for some in index.split(_READ_TOGETHER):
        for frame in frames.read(some[:, None])[:, 0]:
            yield np.ascontiguousarray(frame.permute(1, 2, 0).numpy())


def encode_video(
    path: Path, frames: FrameSource, index: Int[Tensor, " f"], *, fps: float, encoder: RGBEncoderConfig
) -> dict[str, np.ndarray]:
    """Write the frames at `index` to the video file `path`, and return their statistics.

    LeRobot's own encoder of streams is made for recording: it leaves out frames when it is slower than the camera.
    """
    os.environ.setdefault("SVT_LOG", "1")  # only errors: this encoder prints its settings for every file
    statistics = PictureStatistics(len(index))
    rate = Fraction(fps).limit_denominator(1001)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder.vcodec, rate, options=encoder.get_codec_options(as_strings=True))
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = encoder.pix_fmt
        stream.time_base = 1 / rate
        for number, picture in enumerate(pictures(frames, index)):
            stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
            statistics.add(picture)
        container.mux(stream.encode())
    return statistics.result()


def encode_images(
    frames: FrameSource, index: Int[Tensor, " f"]
) -> tuple[list[dict[str, object]], dict[str, np.ndarray]]:
    """Encode the frames at `index` as PNG, in the form of the `datasets` library; returns them and their statistics."""
    statistics = PictureStatistics(len(index))
    images: list[dict[str, object]] = []
    for picture in pictures(frames, index):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="PNG", compress_level=1)
        images.append({"bytes": file.getvalue(), "path": None})
        statistics.add(picture)
    return images, statistics.result()
