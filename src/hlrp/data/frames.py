"""Random access to the frames of a LeRobotDataset, resized to one size, from images, videos or memory.

Pixels are uint8 RGB.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int, UInt8
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from PIL.Image import DecompressionBombError, Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from hlrp.data.dataset import DEFAULT_TOLERANCE_S, episode_bounds
from hlrp.data.video_files import VideoFiles
from hlrp.pixels import resize, take
from hlrp.runtime.progress import ProgressBar

logger = logging.getLogger(__name__)

_CACHE_RUN = 256
"""Frames that are decoded between two updates of the progress bar while the cache is filled."""


@runtime_checkable
class FrameSource(Protocol):
    """Frames of one camera by absolute index."""

    def read(self, index: Int[Tensor, "b t"]) -> UInt8[Tensor, "b t 3 h w"]:
        """Read the frames at `index`, uint8 RGB in [0, 255]."""
        ...


class ImageFiles:
    """Frames of a LeRobotDataset that stores images, decoded in every call of `read`."""

    def __init__(
        self, dataset: LeRobotDataset, camera: str, image_size: tuple[int, int], *, crop: bool = False
    ) -> None:
        self._camera = camera
        self._size = image_size
        self._crop = crop
        self._images = dataset.hf_dataset.select_columns([camera]).with_format(None)

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: Int[Tensor, "b t"]) -> UInt8[Tensor, "b t 3 h w"]:
        """Frames at `index`."""
        wanted, place = index.unique(return_inverse=True)
        try:
            images = self._images[wanted.tolist()][self._camera]
            for image in images:
                image.load()
        except (OSError, SyntaxError, DecompressionBombError) as error:  # Pillow decodes at first use
            if isinstance(error, OSError) and error.errno is not None:  # the disk failed, not the picture
                raise
            raise ValueError(
                f"a picture of camera {self._camera!r} among the frames {int(wanted.min())} to {int(wanted.max())} "
                f"cannot be read ({error}); copy the dataset again, or download it anew"
            ) from error
        frames = [resize(pil_to_tensor(self._rgb(image)), self._size, crop=self._crop) for image in images]
        return take(torch.stack(frames), place)

    def _rgb(self, image: Image) -> Image:
        """Convert a picture to 8-bit RGB: grey is repeated in all channels, alpha is dropped.

        Raises:
            ValueError: If the picture has more than 8 bits per channel, as depth maps do.
        """
        if image.mode.startswith(("I", "F")):
            raise ValueError(
                f"camera {self._camera!r} holds pixels of mode {image.mode}, expected 8-bit pictures; if it is a depth "
                'map, mark it in meta/info.json with "is_depth_map": true, which leaves it out'
            )
        return image.convert("RGB")


class CachedFrames:
    """Frames that are all in memory."""

    def __init__(self, frames: UInt8[Tensor, "f 3 h w"]) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, index: Int[Tensor, "b t"]) -> UInt8[Tensor, "b t 3 h w"]:
        """Frames at `index`."""
        return take(self.frames, index)


class StackedFrames:
    """Frames of one or more cameras, which become an axis of their own."""

    def __init__(self, cameras: Sequence[FrameSource]) -> None:
        self.cameras = list(cameras)

    @property
    def are_in_memory(self) -> bool:
        """Whether the frames of all cameras are in memory, so that reading them needs no decoding."""
        return all(isinstance(camera, CachedFrames) for camera in self.cameras)

    @property
    def episode_files(self) -> Int[Tensor, " e"] | None:
        """Number of the file that holds each episode of the first camera; None if frames are not read from videos."""
        first = self.cameras[0]
        return first.file if isinstance(first, VideoFiles) else None

    def read(self, index: Int[Tensor, "b t"]) -> UInt8[Tensor, "b t m c h w"]:
        """Frames at `index`, uint8 RGB in [0, 255]."""
        return torch.stack([camera.read(index) for camera in self.cameras], dim=2)


def open_frames(
    dataset: LeRobotDataset,
    camera: str,
    image_size: tuple[int, int],
    *,
    cache_gib: float,
    show_progress: bool = True,
) -> FrameSource:
    """Open the frames of `camera`, resized to `image_size` (height, width).

    If they fit into `cache_gib` GiB, all frames are decoded now and kept in memory; otherwise in every read.
    """
    stream = stored_frames(dataset, camera, image_size)
    return in_memory(stream, image_size, cache_gib=cache_gib, show_progress=show_progress)


def stored_frames(
    dataset: LeRobotDataset, camera: str, image_size: tuple[int, int], *, crop: bool = False
) -> VideoFiles | ImageFiles:
    """Frames of `camera` that are decoded in every read and resized to `image_size` (height, width).

    Args:
        dataset: The dataset.
        camera: Dataset key of the camera.
        image_size: Height and width of the frames that are read.
        crop: Crop frames to the shape of `image_size` instead of stretching them.
    """
    if camera in dataset.meta.video_keys:
        return _video_files(dataset, camera, image_size, crop=crop)
    return ImageFiles(dataset, camera, image_size, crop=crop)


def in_memory(
    stream: VideoFiles | ImageFiles, image_size: tuple[int, int], *, cache_gib: float, show_progress: bool = True
) -> FrameSource:
    """Decode all frames of `stream` into memory if they fit into `cache_gib` GiB; otherwise return `stream` itself."""
    if not fits_in_memory(len(stream), image_size, cache_gib=cache_gib):
        return stream
    frames = torch.empty(len(stream), 3, *image_size, dtype=torch.uint8)
    with ProgressBar("decoding frames", len(stream), unit="frame", is_shown=show_progress) as bar:
        for run in torch.arange(len(stream)).split(_CACHE_RUN):
            frames[run[0] : run[-1] + 1] = stream.read(run[:, None])[:, 0]
            bar.update(len(run))
    return CachedFrames(frames)


def fits_in_memory(num_frames: int, image_size: tuple[int, int], *, cache_gib: float) -> bool:
    """Whether RGB frames of `image_size` (height, width) fit into `cache_gib` GiB; if not, log this."""
    gib = num_frames * 3 * image_size[0] * image_size[1] / 2**30
    if gib > cache_gib > 0:
        logger.info(f"{num_frames} frames need {gib:.1f} GiB, over cache_gib={cache_gib}: decoding them on demand")
    return gib <= cache_gib


def _video_files(dataset: LeRobotDataset, camera: str, image_size: tuple[int, int], *, crop: bool) -> VideoFiles:
    meta = dataset.meta
    assert meta.episodes is not None, "a dataset that was opened has its episodes"
    assert meta.video_path is not None, "a dataset with a video camera has videos"
    chunk, number = (
        torch.tensor(list(meta.episodes[f"videos/{camera}/{column}"])) for column in ("chunk_index", "file_index")
    )
    # In float32, start times beyond 1000 s would be further from those in the file than `tolerance_s` allows.
    start = torch.tensor(list(meta.episodes[f"videos/{camera}/from_timestamp"]), dtype=torch.float64)
    places, file = torch.stack([chunk, number], dim=1).unique(dim=0, return_inverse=True)
    files = [
        dataset.root / meta.video_path.format(video_key=camera, chunk_index=chunk, file_index=number)
        for chunk, number in places.tolist()
    ]
    return VideoFiles(
        files,
        episode_bounds(meta),
        file,
        start,
        fps=float(dataset.fps),
        image_size=image_size,
        crop=crop,
        # LeRobot writes videos with a constant frame rate. Other videos fail the check of `tolerance_s`, unless the
        # user has raised it for them.
        constant_rate=dataset.tolerance_s <= DEFAULT_TOLERANCE_S,
        tolerance_s=dataset.tolerance_s,
    )
