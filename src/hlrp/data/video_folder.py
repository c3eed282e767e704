"""A folder of plain videos as a source for stage 1: no robot, no actions, no metadata.

Shapes: e episodes, n frames.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import av
import torch
from av.error import FFmpegError

from hlrp.checks import require_number
from hlrp.data.frames import in_memory
from hlrp.data.sources import ClipSource
from hlrp.data.video_files import VideoFiles

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".webm")


@dataclass(frozen=True)
class VideoLength:
    """When a video shows its pictures."""

    start_s: float
    """Time stamp of its first frame."""
    duration_s: float
    """From its first frame to the end of its last."""
    fps: float
    """Average frame rate, in Hz."""


def open_video_source(
    folder: Path | str, *, image_size: tuple[int, int], cache_gib: float, fps: float | None = None
) -> ClipSource:
    """Every video file in `folder` and the folders in it, in the order of their paths, as one episode each.

    All files are read by time at one rate, so that an offset in seconds means the same in each: a frame is what is on
    screen in the middle of its 1/fps. Files of another or of a variable rate repeat frames or leave some out.

    Args:
        folder: Where the videos are.
        image_size: Height and width to resize to.
        cache_gib: Keep frames in memory up to this size.
        fps: Rate at which to read; default: the highest average rate of a file.

    Raises:
        FileNotFoundError: If `folder` does not exist or holds no video.
        ValueError: If a file cannot be read as a video, or `fps` is not positive.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"video_dir {folder} is not a folder")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
    if not files:
        raise FileNotFoundError(f"video_dir {folder} holds no video; expected files in {', '.join(VIDEO_SUFFIXES)}")
    require_number("fps", fps, above=0)
    lengths = [video_length(path) for path in files]
    rate = max(length.fps for length in lengths) if fps is None else fps
    # A frame counts where its middle is still shown: 0.499 rather than a half, for that must be before the end.
    counts = torch.tensor([max(int(length.duration_s * rate + 0.499), 1) for length in lengths])
    ends = counts.cumsum(0)
    starts = ends - counts
    file = torch.repeat_interleave(torch.arange(len(files)), counts)
    start_s = torch.tensor([length.start_s for length in lengths], dtype=torch.float64)
    stream = VideoFiles(
        files,
        file,
        start_s[file] + (torch.arange(len(file)) - starts[file]).double() / rate,
        fps=rate,
        image_size=image_size,
        constant_rate=False,
        tolerance_s=None,
    )
    logger.info(f"{len(files)} videos in {folder}, read at {rate:g} frames per second: {len(stream)} frames")
    return ClipSource(
        name=str(folder),
        frames=in_memory(stream, image_size, cache_gib=cache_gib),
        bounds=torch.stack([starts, ends], dim=1),
        fps=rate,
        cameras=(),
        actions=None,
    )


def video_length(path: Path) -> VideoLength:
    """Read the time stamps of all frames of `path`, without decoding one.

    Raises:
        ValueError: If it is no video, is damaged, or has fewer than two frames.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} has no pictures; remove it from the folder")
            stream = container.streams.video[0]
            base = stream.time_base
            shown = [
                (packet.pts, packet.pts + (packet.duration or 0))
                for packet in container.demux(stream)
                if packet.pts is not None and packet.size
            ]
    except FFmpegError as error:
        raise ValueError(
            f"{path} is not a readable video; it is empty, cut short or damaged: copy it again or remove it ({error})"
        ) from error
    if len(shown) < 2 or base is None:
        raise ValueError(f"{path} has {len(shown)} frames, a clip needs at least two; remove it from the folder")
    first, last, end = min(shown)[0], max(shown)[0], max(end for _, end in shown)
    return VideoLength(
        float(first * base), float((end - first) * base), float((len(shown) - 1) / ((last - first) * base))
    )
