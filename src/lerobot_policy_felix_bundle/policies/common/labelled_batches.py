"""Training batches that hold enough frames with an action to learn from, whatever LeRobot's sampler chooses.

LeRobot's sampler chooses all frames of a run equally often. If one episode in a hundred has actions, most batches have
none. LeRobot's training loop accepts no other sampler, but PyTorch's data loader lets a dataset read a whole batch at
once, by the method `__getitems__`. The policy therefore gives the dataset of its run this method: `LabelledBatches`
replaces surplus frames of a batch before they are read. Whatever LeRobot does with a frame (decoding in worker
processes, windows of actions, image transforms, renaming, normalization) happens to the replacement, too. Nothing of it
is saved: a resumed run builds its policy again and with it this method.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Bool, Int
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch import Tensor

from hlrp.data.clip_starts import clip_is_valid
from hlrp.data.dataset import episode_bounds, episode_of_frame

from .configuration import HLRPConfig
from .label_table import LabelTable
from .labels import LabelSource
from .run_episodes import datasets_of_run

logger = logging.getLogger(__name__)

_RANGES_IN_LOG = 8
"""Ranges of episode numbers that the log names."""
_AS_DRAWN = "batches hold as many of them as LeRobot draws"


class LabelledBatches:
    """Reads a batch of a dataset, with surplus unlabelled frames replaced by labelled ones.

    The replacements depend only on the sampled frames. A resumed run therefore repeats them, with any number of worker
    processes, and processes that sample different frames get different replacements.
    """

    def __init__(self, dataset: LeRobotDataset, labelled: Bool[Tensor, " f"], *, share: float) -> None:
        """Prepare the choice of replacements.

        Args:
            dataset: Dataset of the run; it may hold only some episodes.
            labelled: True for frames with an action to learn from, by their absolute index.
            share: Least share of a batch that is labelled.
        """
        # A data loader counts the rows of the episodes that were opened, not the frames of the whole dataset.
        index = torch.from_numpy(dataset.hf_dataset.data.column("index").to_numpy().copy())
        self._dataset: Any = dataset  # LeRobot's type of an item also allows the items of several rows
        self._labelled = labelled[index]
        self._choice = self._labelled.nonzero()[:, 0]
        self._share = share

    def __call__(self, drawn: Sequence[int]) -> list[dict[str, Any]]:
        """Read the items of a batch; `drawn` are rows of the dataset."""
        return [self._dataset[row] for row in self.rows(drawn)]

    def rows(self, drawn: Sequence[int]) -> list[int]:
        """Rows to read in place of the rows `drawn`; each row stays, or becomes a labelled one."""
        rows = [int(row) for row in drawn]
        unlabelled = [place for place, row in enumerate(rows) if not self._labelled[row]]
        required = math.ceil(self._share * len(rows) - 1e-9)  # 0.7 * 10 is slightly more than 7
        lacking = required - (len(rows) - len(unlabelled))
        if lacking <= 0 or not len(self._choice):
            return rows
        draw = random.Random(str(rows))  # noqa: S311  the same in every process, unlike `hash` of a text
        # Without replacement, in as many passes over the labelled frames as the batch needs.
        passes = math.ceil(lacking / len(self._choice))
        chosen = draw.sample(range(passes * len(self._choice)), lacking)
        for place, number in zip(draw.sample(unlabelled, lacking), chosen, strict=True):
            rows[place] = int(self._choice[number % len(self._choice)])
        return rows


class IdleSteps:
    """Counts training steps, and warns once, at the first step that learns nothing."""

    def __init__(self) -> None:
        self._steps = 0
        self._has_warned = False

    def count(self, *, learned: bool) -> None:
        """Count one more step; `learned` is false if no frame of its batch had an action or a code to learn from."""
        self._steps += 1
        if learned or self._has_warned:
            return
        self._has_warned = True
        logger.warning(
            f"step {self._steps} of this command learns nothing, because no frame of its batch has an action or a code "
            "to learn from, and later steps may not either; raise --policy.labelled_share, or label more frames"
        )


def least_labelled_share(config: HLRPConfig, *, learns_codes: bool, all_known: bool) -> float:
    """Least labelled share of a batch: `labelled_share`, or the default for what this run learns.

    Args:
        config: Configuration of the policy.
        learns_codes: Whether the run learns latent codes from frames without an action.
        all_known: Whether all frames of the run have a known action.
    """
    if not config.learns_actions:
        return 0.0
    if config.labelled_share is not None:
        return config.labelled_share
    if all_known:
        return 0.0
    return 0.5 if learns_codes else 1.0


def frames_with_codes(labels: LabelSource | None, dataset_meta: Any) -> Bool[Tensor, " f"]:
    """Mask of the frames of a dataset whose latent codes are learned; true everywhere if `labels` is None.

    For labels from the disk this is `LatentActions.counted`. An online teacher makes its codes later, in each batch; it
    gives codes to the frames whose clip does not leave the episode.

    Raises:
        ValueError: If no episode is long enough for a clip of the online teacher.
    """
    if labels is None:
        return torch.ones(dataset_meta.total_frames, dtype=torch.bool)
    if isinstance(labels, LabelTable):
        return labels.counted
    return clip_is_valid(episode_bounds(dataset_meta), labels.spec.frame_deltas(float(dataset_meta.fps)))


def fill_batches(
    dataset_meta: Any, *, in_run: Bool[Tensor, " f"], labelled: Bool[Tensor, " f"], share: float, all_known: bool
) -> None:
    """Let the data loader of this run fill its batches up to `share` labelled frames, and log what the run learns from.

    Other data loaders over the same dataset object are filled, too; to measure on all frames, open the dataset again.

    Args:
        dataset_meta: Metadata of the run's dataset, of the same object as the dataset's.
        in_run: True for frames of the episodes that the run uses.
        labelled: True for frames with an action to learn from.
        share: Least share of a batch that is labelled; 0 leaves batches as they are sampled.
        all_known: Whether all frames of the run have a known action; then there is nothing to log.
    """
    labelled = labelled & in_run
    # A streamed dataset has no rows that could be replaced.
    datasets = [dataset for dataset in datasets_of_run(dataset_meta) if isinstance(dataset, LeRobotDataset)]
    for dataset in datasets:
        # None, so that a dataset which an earlier policy of this process was built for is read as usual.
        filled = LabelledBatches(dataset, labelled, share=share) if share > 0 else None
        dataset.__getitems__ = filled  # pyright: ignore[reportAttributeAccessIssue]
    if all_known and share == 0:
        return
    episode = episode_of_frame(episode_bounds(dataset_meta))
    logger.info(
        f"{int(labelled.sum())} of the {int(in_run.sum())} frames of this run have an action to learn from, in "
        f"{_numbers(episode[labelled].unique())} of its {len(episode[in_run].unique())} episodes; "
        + (f"at least {share:.0%} of every batch are such frames" if share > 0 and datasets else _AS_DRAWN)
    )
    if share > 0 and not datasets:
        logger.warning(
            f"labelled_share={share:g} has no effect on a dataset that is streamed, or that is not open while the "
            "policy is built: batches may hold no action to learn from"
        )


def _numbers(episodes: Int[Tensor, " _"]) -> str:
    """Count and numbers of episodes for the log, such as `5 (0-2, 7, 9)`; of many ranges only the first."""
    numbers = episodes.tolist()
    ranges = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    texts = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in ranges[:_RANGES_IN_LOG]]
    more = ["…"] if len(ranges) > _RANGES_IN_LOG else []
    return f"{len(numbers)} ({', '.join([*texts, *more])})" if numbers else "0"
