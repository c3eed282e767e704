"""Which episodes of a source a run trains on, which it holds out, and from which it also learns actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hlrp.data.sources import ClipSource


@dataclass(frozen=True, kw_only=True)
class TrainingSource:
    """One source of a training run, with its training episodes and the episodes whose actions are used."""

    source: ClipSource
    episodes: Int[Tensor, " e"]
    """Training episodes."""
    weight: float | None = None
    """Weight of this source in the mix of clips; None for all sources: all usable clips are sampled equally often."""
    labelled: Int[Tensor, " labelled"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """Training episodes whose actions the quantizer may learn from."""
    chosen: Int[Tensor, " _"] | None = None
    """Episodes that the run uses for training or validation; None: all episodes of the source."""

    @property
    def held_out(self) -> Int[Tensor, " _"]:
        """Episodes that the run uses, but not for training."""
        every = torch.arange(len(self.source.bounds)) if self.chosen is None else self.chosen
        return every[~torch.isin(every, self.episodes)]


def chosen_episodes(num_episodes: int, numbers: Sequence[int] | None, *, name: str) -> Int[Tensor, " _"]:
    """Numbers of the episodes that a run uses, in ascending order; all episodes if `numbers` is None.

    Args:
        num_episodes: Number of episodes in the dataset.
        numbers: Chosen episode numbers, checked by `require_episode_numbers`.
        name: Name of the dataset, for the error message.

    Raises:
        ValueError: If the dataset lacks one of the chosen episodes.
    """
    if numbers is None:
        return torch.arange(num_episodes)
    absent = sorted(number for number in numbers if number >= num_episodes)
    if absent:
        raise ValueError(f"episodes has {absent}, and {name} the episodes 0 to {num_episodes - 1}; choose among those")
    return torch.tensor(sorted(numbers), dtype=torch.int64)


def split_episodes(
    num_episodes: int, *, held_out: float, seed: int, usable: Bool[Tensor, " e"] | None = None
) -> tuple[Int[Tensor, " _"], Int[Tensor, " held_out"]]:
    """Split episodes at random into training episodes and held-out episodes.

    Args:
        num_episodes: Number of episodes to split.
        held_out: Share of the usable episodes to hold out, in (0, 1). At least one is held out and at least one is
            trained on; a single usable episode is trained on, and none is held out.
        seed: Seed of the random split.
        usable: Which episodes may be held out, such as those long enough for a clip; default: all.

    Returns:
        Numbers of the training episodes and of the held-out episodes, ascending.

    Raises:
        ValueError: If `held_out` is not in (0, 1), or there is no episode.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must be between 0 and 1, got {held_out}")
    if num_episodes < 1:
        raise ValueError("need at least one episode, got none")
    order = torch.randperm(num_episodes, generator=torch.Generator().manual_seed(seed))
    candidates = order if usable is None else order[usable[order]]
    count = min(max(round(len(candidates) * held_out), 1), max(len(candidates) - 1, 0))
    test = candidates[:count].sort().values
    every = torch.arange(num_episodes)
    return every[~torch.isin(every, test)], test


def choose_labelled(episodes: Int[Tensor, " e"], *, fraction: float, seed: int) -> Int[Tensor, " labelled"]:
    """Choose a random share `fraction` of `episodes`: at least one, or none if `fraction` is 0.

    Raises:
        ValueError: If `fraction` is not in [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"labelled_fraction must be in [0, 1], got {fraction}")
    count = max(round(len(episodes) * fraction), 1) if fraction else 0
    order = torch.randperm(len(episodes), generator=torch.Generator().manual_seed(seed))
    return episodes[order[:count]].sort().values
