"""Which frames of a dataset have an action that may be learned from: finite ones, of which options choose some."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.utils.constants import ACTION
from torch import Tensor

from hlrp.data.dataset import (
    ACTION_VALID,
    episode_bounds,
    episode_of_frame,
    marks_known_actions,
    read_vectors,
    require_flag,
)
from hlrp.data.episode_split import choose_labelled

logger = logging.getLogger(__name__)


ORDER_OF_LABELLED = 1000
"""Added to the seed of the choice of labelled episodes. `split_episodes` holds out the first episodes of the random
order of the seed itself: with the same order, the labelled episodes would be those whose video LAQ and VLA never saw.
"""


def known_actions(
    meta: LeRobotDatasetMetadata,
    in_run: Bool[Tensor, " f"] | None = None,
    *,
    fraction: float = 1.0,
    episodes: Sequence[int] = (),
    column: str | None = None,
    seed: int = 0,
) -> Bool[Tensor, " f"]:
    """Mask of the frames whose action is finite and chosen by the options.

    Only episodes of the run can be chosen. The run does not train on other episodes, and those that
    `--dataset.eval_split` holds out are for measuring.

    Args:
        meta: Metadata of the dataset.
        in_run: True for frames of the episodes that the run uses; None for all.
        fraction: Share of the run's episodes with actions, in [0, 1], chosen at random with `seed`; at least one
            episode unless the share is 0.
        episodes: Episodes, as an alternative to `fraction`; empty if not used.
        column: Boolean dataset column, true for known actions, as an alternative to `fraction`. None: the column
            `ACTION_VALID` if the dataset has it; `fraction` and `episodes` then choose among these actions.
        seed: Seed of the random choice.

    Raises:
        ValueError: If several alternatives are used, the run lacks the episodes, the dataset lacks the column, or no
            action is known.
    """
    if in_run is None:
        in_run = torch.ones(meta.total_frames, dtype=torch.bool)
    if sum((fraction < 1, len(episodes) > 0, column is not None)) > 1:
        raise ValueError(
            "name the frames with actions in one way: labelled_fraction, labelled_episodes or action_valid_column"
        )
    episode = episode_of_frame(episode_bounds(meta))
    known = _finite_actions(meta, in_run)
    if column is None and marks_known_actions(meta):
        logger.info(f"known actions are those that the dataset's column {ACTION_VALID!r} marks")
        known = known & _column(meta, ACTION_VALID)
    if column is not None:
        known = known & _column(meta, column)
    elif len(episodes):
        chosen = _labelled_episodes(meta, episodes, episode[in_run].unique())
        known = known & (torch.isin(episode, chosen) | ~in_run)
    elif fraction == 0:
        known = torch.zeros_like(known)
    elif fraction < 1:
        chosen = choose_labelled(episode[in_run & known].unique(), fraction=fraction, seed=ORDER_OF_LABELLED + seed)
        known = known & (torch.isin(episode, chosen) | ~in_run)
    if fraction > 0 and not (known & in_run).any():
        raise ValueError(
            f"not one frame of the {len(episode[in_run].unique())} episodes of this run has an action to learn "
            "from; choose episodes or a column with known, finite actions, or, in a policy, train the latents "
            "alone with labelled_fraction=0"
        )
    return known


def _finite_actions(meta: LeRobotDatasetMetadata, in_run: Bool[Tensor, " f"]) -> Bool[Tensor, " f"]:
    """Mask of frames with a finite action; true everywhere if the data is not on this disk, as in streaming."""
    actions = read_vectors(meta, ACTION)
    if actions is None:
        return torch.ones_like(in_run)
    finite = actions.isfinite().all(1)
    unknown = int((in_run & ~finite).sum())
    if unknown:
        logger.warning(
            f"{unknown} of the {int(in_run.sum())} frames of this run have an action that is NaN or infinite: "
            "actions are not learned from these frames"
        )
    return finite


def _labelled_episodes(
    meta: LeRobotDatasetMetadata, episodes: Sequence[int], of_run: Int[Tensor, " _"]
) -> Int[Tensor, " _"]:
    chosen = torch.tensor(list(episodes), dtype=torch.int64)
    last = meta.total_episodes - 1
    lost = [episode for episode in episodes if not 0 <= episode <= last]
    if lost:
        raise ValueError(f"labelled_episodes has {lost}, but the dataset has episodes 0 to {last}; choose among those")
    unused = chosen[~torch.isin(chosen, of_run)].tolist()
    if unused:
        raise ValueError(
            f"labelled_episodes has {unused}, which this run does not train on; choose among its episodes "
            f"{of_run.tolist()}"
        )
    return chosen


def _column(meta: LeRobotDatasetMetadata, name: str) -> Bool[Tensor, " f"]:
    if name not in meta.features:
        raise ValueError(
            f"the dataset has no column {name!r} that says where actions are known; name another with "
            "action_valid_column, or set it to null where all finite actions are known. It has "
            f"{', '.join(meta.features)}"
        )
    require_flag(meta, name)
    values = read_vectors(meta, name)
    if values is None:
        raise ValueError(
            f"action_valid_column={name} is read from the data files, and {Path(meta.root) / 'data'} has none; "
            "train from a local copy of the dataset"
        )
    return values[:, 0] == 1
