"""Clips with known actions: the training data of inverse dynamics models, and how it is divided into folds.

A fold is a set of frames that is held out together. Folds are whole episodes if every task has several episodes with
actions; otherwise they are segments of episodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from hlrp.data.clip_starts import clip_is_valid
from hlrp.data.dataset import episode_of_frame, frame_of_episode
from hlrp.data.sources import ClipSource

_SMALLEST_STD = 1e-6
"""Standard deviation below which an action dimension counts as constant."""


@dataclass(frozen=True)
class ActionScale:
    """Mean and standard deviation of actions, in dataset units."""

    mean: Float[Tensor, " a"]
    std: Float[Tensor, " a"]
    """1 for a dimension that never varies."""
    varies: Bool[Tensor, " a"]
    """Whether a dimension varies at all; others are neither learned nor measured."""

    @classmethod
    def of(cls, actions: Float[Tensor, "f a"]) -> ActionScale:
        """Scale of the rows of `actions`."""
        # In float64, since the float32 mean of equal numbers may differ from them.
        mean, std = actions.double().mean(0), actions.double().std(0, correction=0)
        varies = std > _SMALLEST_STD
        return cls(mean.to(actions.dtype), torch.where(varies, std, 1.0).to(actions.dtype), varies)

    def standardize(self, actions: Float[Tensor, "*b a"]) -> Float[Tensor, "*b a"]:
        """Actions in standard deviations from the mean."""
        return (actions - self.mean) / self.std

    def restore(self, standardized: Float[Tensor, "*b a"]) -> Float[Tensor, "*b a"]:
        """Actions in dataset units; the inverse of `standardize`. Constant dimensions get their constant."""
        return torch.where(self.varies, standardized, 0.0) * self.std + self.mean


def with_frames_between(deltas: list[int], frames: int) -> list[int]:
    """Frames of a clip: those of `deltas`, and `frames` at equal distances from the first to the last of them.

    Args:
        deltas: Frames that are seen in any case, relative to the first frame, ascending from 0.
        frames: At least 2. Positions are rounded to whole frames, so that a short clip has fewer.
    """
    last = deltas[-1]
    frames = min(frames, last + 1)
    return sorted({*deltas, *(round(last * i / (frames - 1)) for i in range(frames))})


class ActionClips:
    """Clips of a source by their first frame, with the standardized actions from the first to the last frame.

    Args:
        source: Frames, episodes and actions.
        known: True for frames whose action is known.
        deltas: Frames of a clip relative to its first frame, ascending from 0.

    Raises:
        ValueError: If no action is known, no episode is long enough for a clip, no known action lies in a clip, or
            the known actions in clips do not vary.
    """

    def __init__(self, source: ClipSource, known: Bool[Tensor, " f"], deltas: list[int]) -> None:
        if source.actions is None or not known.any():
            raise ValueError(f"{source.name} has no frame with a known action to learn from")
        self.source, self.known = source, known
        self.deltas = torch.tensor(deltas)
        self.steps = torch.arange(deltas[-1])
        self.starts: Int[Tensor, " _"] = clip_is_valid(source.scenes, deltas).nonzero()[:, 0]
        """First frames of all clips within a scene, whether or not actions are known."""
        self.learnable: Bool[Tensor, " f"] = known & self._in_a_clip()
        """Whether the action of a frame is known and some clip holds it; models learn and are measured on these."""
        if not self.learnable.any():
            raise ValueError(
                f"no clip of {source.name} holds a known action: a clip spans {deltas[-1] + 1} frames, and the "
                "labelled episodes are shorter; label longer episodes, or use a shorter frame offset"
            )
        # Without the other known actions: a dimension that only they change, such as a flag on the last frame of an
        # episode, can neither be learned nor measured.
        self.scale = ActionScale.of(source.actions[self.learnable])
        if not self.scale.varies.any():
            raise ValueError(f"all known actions of {source.name} are the same, so that nothing can be learned")
        self.actions = torch.where(known[:, None], self.scale.standardize(source.actions), 0.0)

    def _in_a_clip(self) -> Bool[Tensor, " f"]:
        """Whether any clip holds the action of a frame."""
        held = torch.zeros_like(self.known)
        held[self.starts[:, None] + self.steps] = True
        return held

    @property
    def chunk_steps(self) -> int:
        """Number of actions of a clip."""
        return len(self.steps)

    @property
    def overlap(self) -> bool:
        """Whether clips share actions, so that their predictions of an action can be compared."""
        return self.chunk_steps > 1

    def frames(self, starts: Int[Tensor, " b"]) -> UInt8[Tensor, "b t ..."]:
        """Frames of the clips that start at `starts`."""
        return self.source.frames.read(starts[:, None] + self.deltas)

    def targets(
        self, starts: Int[Tensor, " b"], usable: Bool[Tensor, " f"]
    ) -> tuple[Float[Tensor, "b h a"], Bool[Tensor, "b h"]]:
        """Standardized actions of the clips, and a mask of those that are known and `usable`."""
        index = starts[:, None] + self.steps
        return self.actions[index], (self.known & usable)[index]

    def training_starts(self, held_out: Bool[Tensor, " f"]) -> Int[Tensor, " _"]:
        """First frames of the clips with at least one known action that is not held out."""
        usable = self.known & ~held_out
        return self.starts[usable[self.starts[:, None] + self.steps].any(1)]


@dataclass(frozen=True)
class Folds:
    """Division of the frames with known actions into parts that are held out in turn."""

    number: Int[Tensor, " f"]
    """Fold of every frame; -1 for frames without a known action."""
    unit: Literal["episodes", "segments"]
    """What is held out together: whole episodes, or short segments of episodes."""

    @property
    def count(self) -> int:
        """Number of folds."""
        return int(self.number.max()) + 1


def make_folds(
    bounds: Int[Tensor, "e 2"],
    known: Bool[Tensor, " f"],
    instructions: list[str] | None,
    *,
    count: int,
    segment: int,
    seed: int,
) -> Folds:
    """Divide the frames with a known action into at most `count` folds.

    Whole episodes are dealt to the folds task by task if every task has at least two labelled episodes: a model that
    is tested on a fold has then seen other episodes of the same task. Otherwise each labelled episode is cut into
    segments, which are dealt in turn, since leaving out the only episode of a task would measure how models do on tasks
    without any label.

    Args:
        bounds: Start and end of every episode.
        known: True for frames whose action is known.
        instructions: Instruction of every frame; None if all are of one task.
        count: Number of folds.
        segment: Frames of a segment.
        seed: Seed of the order in which episodes are dealt.
    """
    episode = episode_of_frame(bounds)
    labelled = episode[known].unique().tolist()
    task = {e: "" if instructions is None else instructions[int(bounds[e, 0])] for e in labelled}
    per_task = [[e for e in labelled if task[e] == name] for name in dict.fromkeys(task.values())]
    if min(len(episodes) for episodes in per_task) < 2:
        number = (frame_of_episode(bounds) // segment + episode) % count
        return Folds(torch.where(known, number, -1), "segments")
    order = torch.randperm(len(bounds), generator=torch.Generator().manual_seed(seed))
    folds = min(count, max(len(episodes) for episodes in per_task))
    fold_of_episode = torch.full((len(bounds),), -1, dtype=torch.int64)
    for episodes in per_task:
        for place, e in enumerate(sorted(episodes, key=lambda e: int(order[e]))):
            fold_of_episode[e] = place % folds
    return Folds(torch.where(known, fold_of_episode[episode], -1), "episodes")
