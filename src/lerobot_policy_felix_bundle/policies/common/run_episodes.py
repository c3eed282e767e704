"""Find the episodes of the dataset that a training run uses; labelled actions are chosen among them.

Shapes: f frames of the dataset.
"""

from __future__ import annotations

import gc
from typing import Any

import torch
from jaxtyping import Bool
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.streaming_dataset import StreamingLeRobotDataset
from torch import Tensor

from hlrp.data.dataset import episode_bounds, episode_of_frame


def datasets_of_run(dataset_meta: Any) -> list[Any]:
    """Open datasets with the metadata object `dataset_meta`, found among all objects of Python's garbage collector."""
    kinds = (LeRobotDataset, StreamingLeRobotDataset)
    # An object refers to its class; a loop over all objects of a process, millions, would take longer than a policy.
    # `type` instead of `isinstance`, which reads attributes of proxy objects; some are expensive or warn.
    return [found for found in gc.get_referrers(*kinds) if type(found) in kinds and found.meta is dataset_meta]


def episodes_of_run(dataset_meta: Any) -> list[int]:
    """Numbers of the episodes that the run uses, in ascending order.

    `--dataset.episodes` and `--dataset.eval_split` choose episodes, but LeRobot gives a policy only the metadata, which
    does not contain this choice. The dataset object does, and it exists while the policy is built. It is therefore
    looked up; see `datasets_of_run`. Without such an object, all episodes are returned.
    """
    owners = datasets_of_run(dataset_meta)
    if not owners or any(owner.episodes is None for owner in owners):
        return list(range(dataset_meta.total_episodes))
    return sorted({int(number) for owner in owners for number in owner.episodes})


def frames_of_run(dataset_meta: Any) -> Bool[Tensor, " f"]:
    """Mask of the frames of the dataset that belong to an episode of the run."""
    return torch.isin(episode_of_frame(episode_bounds(dataset_meta)), torch.tensor(episodes_of_run(dataset_meta)))
