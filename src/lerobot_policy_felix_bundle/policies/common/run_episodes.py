"""Which episodes of its dataset a training run uses, so that actions are chosen among those.

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


def episodes_of_run(dataset_meta: Any) -> list[int]:
    """Numbers of the episodes of the dataset that owns `dataset_meta`, in ascending order.

    `--dataset.episodes` and `--dataset.eval_split` choose episodes, and LeRobot hands a policy the metadata alone,
    which does not know of the choice. The dataset object does, and is alive while its policy is built: it is looked up
    among the objects that Python manages. Without one, the run uses every episode.
    """
    kinds = (LeRobotDataset, StreamingLeRobotDataset)
    # By `type`, since `isinstance` asks some proxies for attributes that are expensive or warn.
    owners: list[Any] = [found for found in gc.get_objects() if type(found) in kinds and found.meta is dataset_meta]
    if not owners or any(owner.episodes is None for owner in owners):
        return list(range(dataset_meta.total_episodes))
    return sorted({int(number) for owner in owners for number in owner.episodes})


def frames_of_run(dataset_meta: Any) -> Bool[Tensor, " f"]:
    """Whether each frame of the dataset is of an episode that the run uses."""
    return torch.isin(episode_of_frame(episode_bounds(dataset_meta)), torch.tensor(episodes_of_run(dataset_meta)))
