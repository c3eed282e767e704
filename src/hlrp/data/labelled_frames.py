"""Batches of (images, instruction, codes) for stage 2, in an order that depends on the seed only.

Shapes: g labelled frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from hlrp.data.clip_draws import source_shares
from hlrp.data.frames import FrameSource, StackedFrames
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.online_labels import OnlineLabelBatch
from hlrp.latents import LatentActions
from hlrp.training.row_draws import RowDraws
from hlrp.training.step_batches import part_rows

AnyBatch = FoundationBatch | OnlineLabelBatch


class Observations:
    """Images and instructions of one dataset, by frame index.

    Args:
        cameras: One source of frames for each camera, in the order in which the model takes them.
        instructions: Instruction of every frame, length f.
    """

    def __init__(self, cameras: Sequence[FrameSource], instructions: Sequence[str]) -> None:
        self._cameras = list(cameras)
        self.instructions = list(instructions)

    def batch(self, index: Int[Tensor, " b"]) -> FoundationBatch:
        """Images (float32 in [0, 1]) and instructions of the frames `index`, without labels."""
        images = torch.cat([camera.read(index[:, None]) for camera in self._cameras], dim=1)
        return FoundationBatch(images.float() / 255, [self.instructions[i] for i in index.tolist()])


@runtime_checkable
class Frames(Protocol):
    """Training samples by frame index."""

    def batch(self, index: Int[Tensor, " b"]) -> AnyBatch:
        """The samples at the frames `index`."""
        ...


class LabelledFrames:
    """Training samples whose latent labels were read from disk.

    Args:
        observations: Images and instructions.
        labels: Latent actions of every frame; frames without a label have entries too, which must not be requested.
    """

    def __init__(self, observations: Observations, labels: LatentActions) -> None:
        self._observations = observations
        self._labels = labels

    def batch(self, index: Int[Tensor, " b"]) -> FoundationBatch:
        """Samples of the frames `index`, all of which must have a label."""
        return replace(self._observations.batch(index), labels=self._labels.rows(index))


class OnlineLabelFrames:
    """Training samples that a quantizer labels during training: each comes with the clip to be labelled.

    Args:
        observations: Images and instructions, for the model.
        clips: Frames for the quantizer, at its own image size.
        deltas: Frames of a clip, relative to its first frame.
    """

    def __init__(self, observations: Observations, clips: StackedFrames, deltas: Sequence[int]) -> None:
        self._observations = observations
        self._clips = clips
        self._deltas = torch.tensor(deltas)

    def batch(self, index: Int[Tensor, " b"]) -> OnlineLabelBatch:
        """Samples of the frames `index`, each of which must be the start of a whole clip."""
        return OnlineLabelBatch(self._observations.batch(index), self._clips.read(index[:, None] + self._deltas))


@dataclass(frozen=True)
class FramePool:
    """Labelled frames of one source, from which batches are sampled."""

    frames: Frames
    index: Int[Tensor, " g"]
    """Absolute indices of the labelled frames."""
    weight: float | None = None
    """Weight of this source in the mix of samples; if None for all sources, every frame is used once per epoch."""


class ShuffledBatches(Dataset[AnyBatch]):
    """Training batches by step number: batch `i` is the same in every run.

    Without weights, every frame is used once per epoch. With weights, each batch is sampled at random with
    replacement, in proportion to the weights of the sources.

    Args:
        pools: Labelled frames of all sources.
        batch_size: Samples of a batch; the attribute `batch_size` is smaller if there are fewer frames.
        num_batches: Steps of the run.
        seed: Seed of all random choices.

    Raises:
        ValueError: If only some pools have a weight.
    """

    def __init__(self, pools: Sequence[FramePool], *, batch_size: int, num_batches: int, seed: int) -> None:
        counts = torch.tensor([len(pool.index) for pool in pools])
        shares = source_shares([pool.weight for pool in pools], counts)
        self.shares: list[float] = shares.tolist()
        """Share of the samples that come from each source; the shares sum to 1."""
        self._frames = [pool.frames for pool in pools]
        self._index = torch.cat([pool.index for pool in pools])
        self._pool_of = torch.repeat_interleave(torch.arange(len(pools)), counts)
        self._is_weighted = any(pool.weight is not None for pool in pools) and len(pools) > 1
        self._cumulative = (shares / counts)[self._pool_of].cumsum(0)
        self.batch_size = min(batch_size, len(self._index))
        """Samples of every batch."""
        self._num_batches = num_batches
        self._seed = seed
        self._order: tuple[int, Int[Tensor, " g"]] | None = None

    def __len__(self) -> int:
        return self._num_batches

    def __getitem__(self, step: int) -> AnyBatch:
        return self.part(step, 0, 1)

    def part(self, step: int, index: int, parts: int) -> AnyBatch:
        """Part `index` of `parts` of batch `step`; see `StepBatches.part`.

        Raises:
            ValueError: If the batch size is not a multiple of `parts`.
        """
        batch = self._read(self._draw(step)[part_rows(self.batch_size, index, parts)])
        return _with_draws(batch, RowDraws.of_part(step, index, parts, batch_size=self.batch_size))

    def _draw(self, step: int) -> Int[Tensor, " b"]:
        """Positions, in the joint list of labelled frames, of the samples of batch `step`."""
        if self._is_weighted:
            generator = torch.Generator().manual_seed(hash((self._seed, step)) % 2**63)
            place = torch.rand(self.batch_size, generator=generator, dtype=torch.float64) * self._cumulative[-1]
            drawn = torch.searchsorted(self._cumulative, place, right=True)
            return drawn.clamp_max(len(self._index) - 1)  # rounding may make the product the length itself
        per_epoch = len(self._index) // self.batch_size
        epoch, position = divmod(step, per_epoch)
        return self._order_of(epoch)[position * self.batch_size : (position + 1) * self.batch_size]

    def _order_of(self, epoch: int) -> Int[Tensor, " g"]:
        """Random order of all positions in `epoch`; kept until the next epoch, since shuffling takes time."""
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)  # nearby seeds share no epoch
            self._order = epoch, torch.randperm(len(self._index), generator=generator)
        return self._order[1]

    def _read(self, drawn: Int[Tensor, " b"]) -> AnyBatch:
        rows = [(self._pool_of[drawn] == number).nonzero()[:, 0] for number in range(len(self._frames))]
        found = [
            frames.batch(self._index[drawn[some]]) for frames, some in zip(self._frames, rows, strict=True) if len(some)
        ]
        return found[0] if len(found) == 1 else _joined(found, torch.cat(rows).argsort())


class OrderedBatches(Dataset[AnyBatch]):
    """Validation batches: every frame of every pool once, in order; weights are ignored."""

    def __init__(self, pools: Sequence[FramePool], *, batch_size: int) -> None:
        self._chunks = [
            (pool.frames, chunk) for pool in pools if len(pool.index) for chunk in pool.index.split(batch_size)
        ]

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, number: int) -> AnyBatch:
        if number >= len(self._chunks):
            raise IndexError(number)
        frames, chunk = self._chunks[number]
        return frames.batch(chunk)


def _with_draws(batch: AnyBatch, draws: RowDraws) -> AnyBatch:
    if isinstance(batch, OnlineLabelBatch):
        return replace(batch, observations=replace(batch.observations, draws=draws))
    return replace(batch, draws=draws)


def _joined(batches: Sequence[AnyBatch], order: Int[Tensor, " b"]) -> AnyBatch:
    """Concatenate the samples of several sources to one batch, and put them in `order`."""
    observed = [batch.observations if isinstance(batch, OnlineLabelBatch) else batch for batch in batches]
    instructions = [text for batch in observed for text in batch.instructions]
    labels = [batch.labels for batch in observed if batch.labels is not None]
    observations = FoundationBatch(
        torch.cat([batch.images for batch in observed])[order],
        [instructions[i] for i in order.tolist()],
        LatentActions.joined(labels).rows(order) if len(labels) == len(observed) else None,
    )
    clips = [batch.clips for batch in batches if isinstance(batch, OnlineLabelBatch)]
    return OnlineLabelBatch(observations, torch.cat(clips)[order]) if clips else observations
