"""Clips (t, t+offset, …) that never leave their episode, in an order that is a function of the seed alone.

Shapes: e episodes, n frames, b clips, t frames of a clip, m clips of a split.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from hlrp.data.frames import FrameSource


def clip_is_valid(bounds: Int[Tensor, "e 2"], deltas: list[int]) -> Bool[Tensor, " n"]:
    """Whether the clip that starts at each frame ends inside that frame's episode.

    Raises:
        ValueError: If no episode is long enough for a single clip.
    """
    ends = torch.repeat_interleave(bounds[:, 1], bounds[:, 1] - bounds[:, 0])
    valid = torch.arange(len(ends)) + max(deltas) < ends
    if not valid.any():
        longest = int((bounds[:, 1] - bounds[:, 0]).max())
        raise ValueError(
            f"a clip spans {max(deltas) + 1} frames but the longest episode has {longest}; use a shorter offset"
        )
    return valid


def split_episodes(num_episodes: int, *, held_out: float, seed: int) -> tuple[Int[Tensor, " e"], Int[Tensor, " v"]]:
    """Training and held-out episode numbers; at least one of each.

    Raises:
        ValueError: If there are fewer than two episodes, or `held_out` is not in (0, 1).
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must be between 0 and 1, got {held_out}")
    if num_episodes < 2:
        raise ValueError(f"need at least two episodes to hold one out, got {num_episodes}")
    order = torch.randperm(num_episodes, generator=torch.Generator().manual_seed(seed))
    count = min(max(round(num_episodes * held_out), 1), num_episodes - 1)
    return order[count:].sort().values, order[:count].sort().values


@dataclass(frozen=True, kw_only=True)
class ClipAugmentation:
    """Label-free variation of clips, so that the future cannot be guessed from the first frame alone."""

    reverse_probability: float = 0.5
    """Share of clips played backwards: the direction of motion must then come from the code."""
    reverse_until: float = 0.7
    """Share of the run after which clips are played forwards only, so that codes settle on what data holds."""
    max_stretch: float = 0.0
    """Draw offsets between 0 and this many times the nominal one; 0 keeps the nominal one."""

    def __post_init__(self) -> None:
        if not 0 <= self.reverse_until <= 1:
            raise ValueError(f"reverse_until must be in [0, 1], got {self.reverse_until}")
        if not 0 <= self.reverse_probability <= 1:
            raise ValueError(f"reverse_probability must be in [0, 1], got {self.reverse_probability}")
        if self.max_stretch < 0:
            raise ValueError(f"max_stretch must be 0 (off) or more, got {self.max_stretch}")


class ClipBatches(Dataset[UInt8[Tensor, "b t 3 h w"]]):
    """Training batches by step number: batch `i` is the same in every run, whatever was read before it.

    Args:
        frames: Where pixels come from.
        bounds: Episodes to draw from.
        offset: Frames between consecutive clip frames, before augmentation.
        num_frames: Frames t of a clip.
        batch_size: Clips b of a batch.
        num_batches: Steps of the run.
        seed: Every draw derives from it and the step number.
        augmentation: Reversal and stretching.
    """

    def __init__(
        self,
        frames: FrameSource,
        bounds: Int[Tensor, "e 2"],
        *,
        offset: int,
        num_frames: int,
        batch_size: int,
        num_batches: int,
        seed: int,
        augmentation: ClipAugmentation,
    ) -> None:
        span = offset * (num_frames - 1)
        lengths = (bounds[:, 1] - bounds[:, 0] - span).clamp_min(0)
        self._starts = torch.cat(
            [torch.arange(int(first), int(first + count)) for (first, _), count in zip(bounds, lengths, strict=True)]
        )
        if len(self._starts) == 0:
            longest = int((bounds[:, 1] - bounds[:, 0]).max())
            raise ValueError(
                f"a clip spans {span + 1} frames but the longest episode has {longest}; use a shorter offset"
            )
        self._room = torch.repeat_interleave(bounds[:, 1], lengths) - 1 - self._starts
        self._frames = frames
        self._offset = offset
        self._num_frames = num_frames
        self._batch_size = batch_size
        self._num_batches = num_batches
        self._seed = seed
        self._augmentation = augmentation

    def __len__(self) -> int:
        return self._num_batches

    def index(self, step: int) -> Int[Tensor, "b t"]:
        """Absolute frame indices of batch `step`."""
        generator = torch.Generator().manual_seed(hash((self._seed, step)) % 2**63)
        b = self._batch_size
        pick = torch.randint(len(self._starts), (b,), generator=generator)
        stride = torch.full((b,), self._offset)
        if self._augmentation.max_stretch > 0:
            longest = max(round(self._offset * self._augmentation.max_stretch), 1)
            stride = torch.randint(0, longest + 1, (b,), generator=generator)
            stride = torch.minimum(stride, self._room[pick] // (self._num_frames - 1))
        index = self._starts[pick, None] + stride[:, None] * torch.arange(self._num_frames)
        settled = step >= self._augmentation.reverse_until * self._num_batches
        share = 0.0 if settled else self._augmentation.reverse_probability
        backwards = torch.rand(b, generator=generator) < share
        return torch.where(backwards[:, None], index.flip(1), index)

    def __getitem__(self, step: int) -> UInt8[Tensor, "b t 3 h w"]:
        return self._frames.read(self.index(step))
