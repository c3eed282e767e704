"""From a LeRobot batch to what the library's models take.

Shapes: b batch, t observation steps, c h w a picture, v cameras, r state values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hlrp.foundation.batch import FoundationBatch, require_instructions


def current(observation: Float[Tensor, "b ..."], *, ndim: int) -> Float[Tensor, "b ..."]:
    """The observation at time t: index 0 of a window that LeRobot's delta indices add, or the observation itself.

    This is the only place where a window is opened: nothing later than t leaves it.
    """
    return observation[:, 0] if observation.ndim == ndim + 1 else observation


def foundation_batch(
    batch: Mapping[str, Any],
    image_keys: Iterable[str],
    *,
    codes: Int[Tensor, "b s"] | None = None,
    valid: Bool[Tensor, " b"] | None = None,
) -> FoundationBatch:
    """Current pictures and instructions of a LeRobot batch.

    Raises:
        ValueError: If a camera or the instruction is missing, or an instruction is empty.
    """
    pictures = []
    for key in image_keys:
        if key not in batch:
            raise ValueError(f"the batch lacks the camera {key!r}; map yours to it with --rename_map")
        pictures.append(current(batch[key], ndim=4))
    size = pictures[0].shape[-2:]
    pictures = [
        picture
        if picture.shape[-2:] == size
        else F.interpolate(picture, size, mode="bilinear", antialias=True, align_corners=False)
        for picture in pictures
    ]
    images = torch.stack(pictures, dim=1)
    return FoundationBatch(images, instructions(batch, len(images)), codes, valid)


def instructions(batch: Mapping[str, Any], batch_size: int) -> list[str]:
    """One non-empty instruction per sample, from `task` (a list, or one text for all).

    Raises:
        ValueError: If there is none.
    """
    task = batch.get("task")
    if task is None:
        raise ValueError("the batch has no 'task'; this policy follows an instruction: name the task of every episode")
    return require_instructions([task] * batch_size if isinstance(task, str) else task)
