"""Which frames of a dataset have an action that may be used.

Shapes: f frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.utils.constants import ACTION
from torch import Tensor

from hlrp.data.dataset import episode_bounds, episode_of_frame, read_vectors
from hlrp.data.episode_split import choose_labelled


def known_actions(
    meta: LeRobotDatasetMetadata,
    *,
    fraction: float = 1.0,
    episodes: Sequence[int] = (),
    column: str | None = None,
    seed: int = 0,
) -> Bool[Tensor, " f"]:
    """Frames whose action is finite and chosen by at most one of the options.

    Args:
        meta: Metadata of the dataset.
        fraction: Share of the episodes with actions, drawn with `seed`; at least one episode.
        episodes: Numbers of the episodes, instead of `fraction`; empty if not used.
        column: Boolean column that is true where the action is known, instead of `fraction`.
        seed: Seed of the draw.

    Raises:
        ValueError: If several options are used, the dataset has no such column or episode, or no action is known.
    """
    if sum((fraction < 1, len(episodes) > 0, column is not None)) > 1:
        raise ValueError(
            "name the frames with actions in one way: labelled_fraction, labelled_episodes or action_valid_column"
        )
    known = _finite_rows(meta, ACTION).isfinite().all(1)
    episode = episode_of_frame(episode_bounds(meta))
    if column is not None:
        known = known & (_finite_rows(meta, column)[:, 0] == 1)
    elif episodes:
        lost = sorted(number for number in episodes if not 0 <= number < meta.total_episodes)
        if lost:
            raise ValueError(
                f"labelled_episodes has {lost}, and the dataset has episodes 0 to {meta.total_episodes - 1}"
            )
        known = known & torch.isin(episode, torch.tensor(list(episodes)))
    elif fraction < 1:
        known = known & torch.isin(episode, choose_labelled(episode[known].unique(), fraction=fraction, seed=seed))
    if not known.any():
        raise ValueError(f"no frame of {meta.repo_id} that was chosen has a finite action; choose other episodes")
    return known


def _finite_rows(meta: LeRobotDatasetMetadata, name: str) -> Tensor:
    rows = None if name not in meta.features else read_vectors(meta, name)
    if rows is None:
        raise ValueError(f"{meta.repo_id} has no column {name!r}; it has {', '.join(meta.features)}")
    return rows
