"""A folder of video files as a data source of stage 1, without actions and without dataset metadata.

Such a video file is called a film here, to distinguish it from the videos of a LeRobotDataset. Each film is an episode.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
import torch
from av.container import InputContainer
from av.error import FFmpegError
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from hlrp.data.film_files import find_videos
from hlrp.data.frames import CachedFrames, FrameSource, StackedFrames, fits_in_memory
from hlrp.data.pyav_decoder import PyAVDecoder, open_video
from hlrp.data.scene_cuts import cuts_of_film, differences, find_cuts, reduced
from hlrp.data.sources import ClipSource
from hlrp.data.video_files import VideoFiles, close_files
from hlrp.runtime.checks import require_number
from hlrp.runtime.progress import ProgressBar, progress

logger = logging.getLogger(__name__)

_READ_TOGETHER = 64
"""Frames that are decoded between two updates of the progress bar."""
_FIRST_FRAMES = 16
"""Number of frames that are decoded to check that a file can be decoded and that its time stamps increase."""
_WHOLE = 0.9
"""A file is cut short if its frames last less than this share of the duration in its header, which may be rounded."""
_CONTAINERS_THAT_ANNOUNCE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")
"""FFmpeg's names of containers that store a duration in the header. For others FFmpeg estimates it from the frames."""


class VideoLength(NamedTuple):
    """Start, duration and frame rate of a video, from the time stamps of its frames."""

    start_s: float
    """Time stamp of the first frame that a player shows, in seconds."""
    duration_s: float
    """Time from the start of the first frame to the end of the last frame, in seconds."""
    fps: float
    """Average frame rate, in Hz."""
    last_s: float
    """Time stamp of the last frame, in seconds."""


@dataclass(frozen=True)
class _Film:
    path: Path
    length: VideoLength

    def num_frames(self, rate: float) -> int:
        # A frame counts if its middle lies before the end of the film, hence 0.499 rather than 0.5.
        return max(int(self.length.duration_s * rate + 0.499), 1)


def open_video_source(
    folder: Path | str,
    *,
    image_size: tuple[int, int],
    crop: bool = False,
    cache_gib: float,
    fps: float | None = None,
    skip_bad_videos: bool = False,
    find_scene_cuts: bool = True,
) -> ClipSource:
    """Open all video files in `folder` and its subfolders; each file is one episode, in the order of paths.

    All files are sampled at one frame rate, so that an offset in seconds is the same number of frames in each of them:
    frame i is the picture on screen in the middle of the i-th interval of 1/fps. Files with another or a variable frame
    rate repeat or skip pictures.

    Args:
        folder: Folder of the videos.
        image_size: Height and width to which frames are resized.
        crop: Crop frames to the shape of `image_size` instead of stretching them.
        cache_gib: Keep all frames in memory if they need at most this many GiB.
        fps: Frame rate at which files are sampled, in Hz; default: the highest average frame rate of a file.
        skip_bad_videos: Skip files that cannot be read, with a warning, instead of raising an error.
        find_scene_cuts: Search for scene cuts, which decodes every film once.

    Raises:
        FileNotFoundError: If `folder` does not exist or holds no video.
        ValueError: If files cannot be read as videos (the message names all of them), or `fps` is not positive.
    """
    require_number("fps", fps, above=0)
    folder = Path(folder)
    films: list[_Film] = []
    bad: list[str] = []
    paths = find_videos(folder)
    for path in progress(paths, "reading time stamps"):
        try:
            films.append(_Film(path, video_length(path)))
        except ValueError as error:
            bad.append(str(error))
    _report_bad(bad, folder, left=len(films), skip=skip_bad_videos)
    rate = max(film.length.fps for film in films) if fps is None else fps
    num_frames = sum(film.num_frames(rate) for film in films)
    keep = cache_gib > 0 and fits_in_memory(num_frames, image_size, cache_gib=cache_gib)
    cuts = torch.zeros(0, dtype=torch.int64)
    if keep or find_scene_cuts:
        films, stored, change, bad = _read_films(films, rate, image_size, crop=crop, keep=keep)
        _report_bad(bad, folder, left=len(films), skip=skip_bad_videos)
    else:
        stored = change = None
    bounds = _bounds(films, rate)
    frames = _video_files(films, rate, image_size, crop=crop) if stored is None else CachedFrames(stored)
    if find_scene_cuts:
        assert change is not None, "measured while the films were read"
        cuts = find_cuts(frames, bounds, change, fps=rate)
    close_files()
    if len(films) < len(paths):
        logger.warning(f"the episodes are the other {len(films)} videos, numbered from 0 in the order of their paths")
    logger.info(f"{len(films)} videos in {folder}, read at {rate:g} frames per second: {int(bounds[-1, 1])} frames")
    return ClipSource(
        name=Path(os.path.abspath(folder)).name or "videos",
        frames=StackedFrames([frames]),
        bounds=bounds,
        fps=rate,
        cameras=(),
        actions=None,
        cuts=cuts,
        episode_names=tuple(film.path.relative_to(folder).as_posix() for film in films),
    )


def video_length(path: Path) -> VideoLength:
    """Read the time stamps of all frames of the video file `path`, and decode its first frames as a check.

    Raises:
        ValueError: If the file is no video, is damaged or cut short, or has fewer than two frames.
    """
    try:
        container, stream = open_video(path)
        with container:
            base = stream.time_base
            stamps = [
                (packet.dts if packet.pts is None else packet.pts, packet.duration or 0)
                for packet in container.demux(stream)
                if packet.size and not packet.is_discard  # an edit list marks frames that players do not show
            ]
            announced_s = _announced_s(container, stream)
        first_s = PyAVDecoder(path).first_times(_FIRST_FRAMES)
    except (FFmpegError, RuntimeError) as error:
        raise ValueError(
            f"{path} is not a readable video; it is empty, cut short or damaged: copy it again or remove it ({error})"
        ) from error
    if base is None or not first_s:
        raise ValueError(f"{path} has no picture that can be decoded; encode it again or remove it")
    if first_s != sorted(first_s):
        raise ValueError(f"{path} has time stamps that run backwards; encode it again, such as to mp4, or remove it")
    # A film that does not start with a key frame has pictures at its start that cannot be decoded; skip their stamps.
    shown = sorted(
        (float(stamp * base), float(duration * base))
        for stamp, duration in stamps
        if stamp is not None and float(stamp * base) >= first_s[0]
    )
    if len(shown) < 2 or shown[-1][0] == shown[0][0]:
        raise ValueError(f"{path} has {len(shown)} frames, a clip needs at least two; remove it from the folder")
    (start, _), (last, last_duration) = shown[0], shown[-1]
    mean_step = (last - start) / (len(shown) - 1)
    end = last + (last_duration or mean_step)
    if end - start < _WHOLE * announced_s - mean_step:
        raise ValueError(
            f"{path} is cut short: its pictures end after {end - start:.1f} s of {announced_s:.1f} s; copy it again or "
            "remove it"
        )
    return VideoLength(start, end - start, 1 / mean_step, last)


def _announced_s(container: InputContainer, stream: av.VideoStream) -> float:
    """Duration of `stream` according to the header of the file, in seconds; 0 if the header has none."""
    if container.format.name not in _CONTAINERS_THAT_ANNOUNCE:
        return 0.0
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    is_alone = len(container.streams) == 1  # otherwise the duration may be that of a longer audio stream
    return (container.duration or 0) / av.time_base if is_alone else 0.0


def _report_bad(bad: Sequence[str], folder: Path, *, left: int, skip: bool) -> None:
    """Log a warning for every unusable file, or raise if such files may not be skipped.

    Args:
        bad: One message per unusable file.
        folder: Folder of the videos, for the message.
        left: Number of usable files.
        skip: Whether to skip unusable files.

    Raises:
        ValueError: If there are unusable files and `skip` is false, or no usable file is left.
    """
    if not bad:
        return
    if not skip or not left:
        hint = "; skip_bad_videos=true leaves such files out" if left else ""
        raise ValueError(f"{len(bad)} of {len(bad) + left} videos in {folder} cannot be used: {'; '.join(bad)}{hint}")
    for message in bad:
        logger.warning(f"left out: {message}")


def _bounds(films: Sequence[_Film], rate: float) -> Int[Tensor, "e 2"]:
    counts = torch.tensor([film.num_frames(rate) for film in films])
    ends = counts.cumsum(0)
    return torch.stack([ends - counts, ends], dim=1)


def _video_files(films: Sequence[_Film], rate: float, image_size: tuple[int, int], *, crop: bool) -> VideoFiles:
    return VideoFiles(
        [film.path for film in films],
        _bounds(films, rate),
        torch.arange(len(films)),
        torch.tensor([film.length.start_s for film in films], dtype=torch.float64),
        fps=rate,
        image_size=image_size,
        crop=crop,
        constant_rate=False,
        tolerance_s=None,
        last_s=[film.length.last_s for film in films],
    )


class _ReadFilms(NamedTuple):
    films: list[_Film]
    """Films that could be decoded completely."""
    frames: Tensor | None
    """Frames of these films, uint8 RGB (f, 3, h, w); None if they are not kept in memory."""
    change: Float[Tensor, " f"]
    """Difference of every frame from the previous one, in [0, 255]; 0 for the first frame of a film."""
    bad: list[str]
    """Error message for every other film."""


def _read_films(
    films: Sequence[_Film], rate: float, image_size: tuple[int, int], *, crop: bool, keep: bool
) -> _ReadFilms:
    """Decode all films once, in order; measure the change between frames, and keep the frames if `keep`."""
    stream, bounds = _video_files(films, rate, image_size, crop=crop), _bounds(films, rate)
    frames = torch.empty(len(stream), 3, *image_size, dtype=torch.uint8) if keep else None
    change = torch.zeros(len(stream))
    good: list[_Film] = []
    bad: list[str] = []
    place = 0  # where the film starts in `frames` and `change`: films that cannot be decoded leave no gap
    with ProgressBar("decoding frames", len(stream), unit="frame") as bar:
        for film, (first, end) in zip(films, bounds.tolist(), strict=True):
            try:
                here = place
                for pixels, changed in _film_frames(stream, first, end):
                    if frames is not None:
                        frames[here : here + len(pixels)] = pixels
                    change[here : here + len(pixels)] = changed
                    here += len(pixels)
                    bar.update(len(pixels))
            except ValueError as error:
                bad.append(str(error))
            else:
                good.append(film)
                place += end - first
    return _ReadFilms(good, None if frames is None else frames[:place], change[:place], bad)


def _film_frames(
    frames: FrameSource, first: int, end: int
) -> Iterator[tuple[UInt8[Tensor, "run 3 h w"], Float[Tensor, " run"]]]:
    """Decode a film in order; yields runs of frames, and the difference of each frame from the previous one."""
    last: Tensor | None = None
    for run in torch.arange(first, end).split(_READ_TOGETHER):
        pixels = frames.read(run[:, None])[:, 0]
        small = reduced(pixels)
        yield pixels, differences(torch.cat([small[:1] if last is None else last, small]))
        last = small[-1:]


def scene_cuts(frames: FrameSource, first: int, end: int, *, fps: float) -> Int[Tensor, " cuts"]:
    """First frames after the scene cuts of the film with the frames [`first`, `end`), which is decoded once for it.

    Raises:
        ValueError: If the film cannot be decoded completely.
    """
    change = torch.cat([changed for _, changed in _film_frames(frames, first, end)])
    return cuts_of_film(frames, first, change, fps=fps)
