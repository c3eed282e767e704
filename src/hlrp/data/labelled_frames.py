"""Batches of (frame, instruction, codes) for stage 2, in an order that is a function of the seed alone.

Shapes: n frames, m labelled frames, v cameras, b batch, c codes of one label.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from hlrp.data.frames import FrameSource
from hlrp.foundation.batch import FoundationBatch
from hlrp.step_batches import require_divisible


class LabelledFrames:
    """Frames of one dataset with their instructions and codes.

    Args:
        cameras: One source per camera, in the order the model sees them.
        instructions: Instruction of every frame, length n.
        codes: Codes of every frame; only labelled frames are ever asked for.
    """

    def __init__(self, cameras: Sequence[FrameSource], instructions: Sequence[str], codes: Int[Tensor, "n c"]) -> None:
        self._cameras = list(cameras)
        self._instructions = list(instructions)
        self._codes = codes

    def batch(self, index: Int[Tensor, " b"]) -> FoundationBatch:
        """The frames at `index`, every one of them labelled."""
        images = torch.cat([camera.read(index[:, None]) for camera in self._cameras], dim=1)
        instructions = [self._instructions[i] for i in index.tolist()]
        return FoundationBatch(images.float() / 255, instructions, self._codes[index])


class ShuffledBatches(Dataset[FoundationBatch]):
    """Training batches by step number: batch `i` is the same in every run.

    Args:
        frames: Where samples come from.
        index: Frames to draw from, without repetition inside an epoch.
        batch_size: Samples of a batch.
        num_batches: Steps of the run.
        seed: Order of every epoch.
    """

    def __init__(
        self, frames: LabelledFrames, index: Int[Tensor, " m"], *, batch_size: int, num_batches: int, seed: int
    ) -> None:
        self._frames = frames
        self._index = index
        self._batch_size = min(batch_size, len(index))
        self._num_batches = num_batches
        self._seed = seed

    def __len__(self) -> int:
        return self._num_batches

    def __getitem__(self, step: int) -> FoundationBatch:
        return self.part(step, 0, 1)

    def part(self, step: int, index: int, parts: int) -> FoundationBatch:
        """Rows `index::parts` of batch `step`, for one of `parts` processes or accumulated passes.

        Raises:
            ValueError: If the batch does not divide into equal parts.
        """
        require_divisible(self._batch_size, parts)
        per_epoch = len(self._index) // self._batch_size
        epoch, position = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        order = torch.randperm(len(self._index), generator=generator)
        start = position * self._batch_size
        return self._frames.batch(self._index[order[start + index : start + self._batch_size : parts]])


class OrderedBatches(Dataset[FoundationBatch]):
    """Every frame of `index` once, in order."""

    def __init__(self, frames: LabelledFrames, index: Int[Tensor, " m"], *, batch_size: int) -> None:
        self._frames = frames
        self._chunks = index.split(batch_size)

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, number: int) -> FoundationBatch:
        if number >= len(self._chunks):
            raise IndexError(number)
        return self._frames.batch(self._chunks[number])
