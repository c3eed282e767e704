"""Random access to the frames of one camera, at one size.

Shapes: n frames of the dataset, b clips, t frames of a clip, h and w pixels. Pixels are uint8 RGB.
"""

from __future__ import annotations

import logging
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Int, UInt8
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.video_utils import decode_video_frames
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from tqdm import tqdm

from hlrp.data.dataset import episode_bounds, episode_of_frame

logger = logging.getLogger(__name__)

_DECODE_RUN = 256
"""Consecutive frames decoded in one call: amortises a seek and bounds memory at full resolution."""


@runtime_checkable
class FrameSource(Protocol):
    """Frames by absolute index."""

    def read(self, index: Int[Tensor, "b t"]) -> UInt8[Tensor, "b t 3 h w"]:
        """Frames at `index`."""
        ...


class StreamedFrames:
    """Decodes frames when asked: for datasets larger than memory."""

    def __init__(self, dataset: LeRobotDataset, camera: str, image_size: tuple[int, int]) -> None:
        self._dataset = dataset
        self._camera = camera
        self._size = image_size
        self._is_video = camera in dataset.meta.video_keys
        self._bounds = episode_bounds(dataset.meta)
        self._episode = episode_of_frame(self._bounds)
        self._images = None if self._is_video else dataset.hf_dataset.select_columns([camera]).with_format(None)

    def __len__(self) -> int:
        return len(self._episode)

    def read(self, index: Int[Tensor, "b t"]) -> UInt8[Tensor, "b t 3 h w"]:
        """Frames at `index`; the frames of one row must lie in one episode."""
        return torch.stack([self._read_clip(row) for row in index])

    def read_run(self, first: int, end: int) -> UInt8[Tensor, "t 3 h w"]:
        """Consecutive frames `first` … `end - 1` of one episode."""
        return self._read_clip(torch.arange(first, end))

    def _read_clip(self, index: Int[Tensor, " t"]) -> UInt8[Tensor, "t 3 h w"]:
        rows = index.tolist()
        return resize(self._decode_video(rows) if self._images is None else self._decode_images(rows), self._size)

    def _decode_images(self, rows: list[int]) -> UInt8[Tensor, "t 3 h w"]:
        assert self._images is not None
        return torch.stack([pil_to_tensor(image.convert("RGB")) for image in self._images[rows][self._camera]])

    def _decode_video(self, rows: list[int]) -> UInt8[Tensor, "t 3 h w"]:
        meta, fps = self._dataset.meta, self._dataset.fps
        episode = int(self._episode[rows[0]])
        assert meta.episodes is not None
        start = float(meta.episodes[episode][f"videos/{self._camera}/from_timestamp"])
        first = int(self._bounds[episode, 0])
        return decode_video_frames(
            self._dataset.root / meta.get_video_file_path(episode, self._camera),
            [start + (row - first) / fps for row in rows],
            tolerance_s=self._dataset.tolerance_s,
            return_uint8=True,
        )


class CachedFrames:
    """All frames in memory, decoded once in order."""

    def __init__(self, frames: UInt8[Tensor, "n 3 h w"]) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, index: Int[Tensor, "b t"]) -> UInt8[Tensor, "b t 3 h w"]:
        """Frames at `index`."""
        return self.frames[index]


def open_frames(
    dataset: LeRobotDataset,
    camera: str,
    image_size: tuple[int, int],
    *,
    cache_gib: float,
    show_progress: bool = True,
) -> FrameSource:
    """Frames of `camera` resized to `image_size` (height, width): in memory where they fit into `cache_gib`."""
    stream = StreamedFrames(dataset, camera, image_size)
    gib = len(stream) * 3 * image_size[0] * image_size[1] / 2**30
    if gib > cache_gib:
        logger.info(f"{len(stream)} frames need {gib:.1f} GiB, over cache_gib={cache_gib}: decoding them on demand")
        return stream
    frames = torch.empty(len(stream), 3, *image_size, dtype=torch.uint8)
    with tqdm(total=len(stream), desc="decoding frames", unit="frame", disable=not show_progress) as bar:
        for first, end in episode_bounds(dataset.meta).tolist():
            for run in range(first, end, _DECODE_RUN):
                stop = min(run + _DECODE_RUN, end)
                frames[run:stop] = stream.read_run(run, stop)
                bar.update(stop - run)
    return CachedFrames(frames)


def resize(frames: UInt8[Tensor, "*b 3 h w"], size: tuple[int, int]) -> UInt8[Tensor, "*b 3 y x"]:
    """Resize to `size` (height, width), bilinear with antialiasing; unchanged where the size already fits."""
    if tuple(frames.shape[-2:]) == size:
        return frames
    flat = rearrange(frames, "... c h w -> (...) c h w").float()
    flat = F.interpolate(flat, size, mode="bilinear", antialias=True, align_corners=False)
    return flat.round().clamp(0, 255).to(torch.uint8).reshape(*frames.shape[:-2], *size)
