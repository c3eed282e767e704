from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hlrp.data.frames import CachedFrames, StackedFrames
from hlrp.data.sources import ClipSource
from hlrp.labelling.reading import clip_batches
from hlrp.labelling.shards import plan_shards


class CountedFrames(CachedFrames):
    """Frames whose pixels are their index, which note what is read."""

    def __init__(self, count: int) -> None:
        super().__init__(torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 3, 2, 2))
        self.read_frames: list[int] = []

    def read(self, index: Tensor) -> Tensor:
        self.read_frames += index.flatten().tolist()
        return super().read(index)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
@pytest.mark.parametrize("deltas", [[0], [0, 1], [0, 5, 10]])
def test_every_frame_is_read_once_in_order_and_every_clip_has_its_frames(batch_size: int, deltas: list[int]) -> None:
    frames = CountedFrames(60)
    starts = torch.tensor([s for first, end in [(0, 25), (25, 30), (30, 60)] for s in range(first, end - deltas[-1])])
    batches = list(clip_batches(StackedFrames([frames]), starts, deltas, batch_size=batch_size))
    assert frames.read_frames == sorted(set(frames.read_frames))
    assert torch.cat([index for index, _ in batches]).equal(starts)
    shown = torch.cat([clips[:, :, 0, 0, 0, 0] for _, clips in batches])
    assert shown.equal((starts[:, None] + torch.tensor(deltas)).to(torch.uint8))


class FilesOf(StackedFrames):
    """Frames in video files."""

    def __init__(self, files: list[int]) -> None:
        super().__init__([])
        self._files = torch.tensor(files)

    @property
    def episode_files(self) -> Tensor:
        return self._files


def source(lengths: list[int], files: list[int]) -> ClipSource:
    ends = torch.tensor(lengths).cumsum(0)
    return ClipSource(
        name="films",
        frames=FilesOf(files),
        bounds=torch.stack([ends - torch.tensor(lengths), ends], dim=1),
        fps=10.0,
        cameras=(),
        actions=None,
    )


@pytest.mark.parametrize(
    ("lengths", "files", "expected"),
    [
        ([10, 10, 10, 10], [0, 0, 0, 0], [[0, 1], [2, 3]]),  # divided evenly
        ([5, 5, 5], [0, 0, 1], [[0, 1], [2]]),  # no shard holds two files
        ([50, 5, 5, 50], [0, 0, 0, 0], [[0], [1], [2], [3]]),  # an episode stays whole
        ([100, 1], [0, 1], [[0], [1]]),
    ],
)
def test_shards_hold_whole_episodes_of_one_file(
    lengths: list[int], files: list[int], expected: list[list[int]]
) -> None:
    shards = plan_shards(source(lengths, files), max_frames=20)
    assert [list(shard.episodes) for shard in shards] == expected
    assert [shard.first for shard in shards] == [0, *(shard.end for shard in shards[:-1])]
    assert shards[-1].end == sum(lengths)
