"""Convert a LeRobot batch to the input of the foundation models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hlrp.foundation.batch import FoundationBatch, require_instructions
from hlrp.latents import LatentActions
from hlrp.pixels import resize


def current(observation: Float[Tensor, "b ..."], *, ndim: int) -> Float[Tensor, "b ..."]:
    """Observation at time t: entry 0 of the time window that LeRobot's delta indices add, or the observation itself.

    Policies read observations only through this function, so that they cannot use a frame later than t.
    """
    return observation[:, 0] if observation.ndim == ndim + 1 else observation


def as_rgb(frames: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b 3 h w"]:
    """Images with three channels: grey is repeated and alpha is dropped, as in training of LAQ and foundation model.

    Raises:
        ValueError: If the images do not have 1, 3 or 4 channels.
    """
    channels = frames.shape[-3]
    if channels == 1:
        return frames.expand(*frames.shape[:-3], 3, *frames.shape[-2:])
    if channels not in (3, 4):
        raise ValueError(f"pictures must have 1 (grey), 3 (RGB) or 4 (RGB and alpha) channels, got {channels}")
    return frames[..., :3, :, :]


def one_value_per_sample(state: Float[Tensor, "..."], batch_size: int) -> Float[Tensor, "b ..."]:
    """Add the axis that LeRobot omits for a state of one value: returns (b, 1), or (b, t, 1) with a time window.

    LeRobot's batching step mistakes the values (b,) of a batch for one state, so that they may arrive as (1, b).
    """
    if state.numel() == batch_size:
        return state.reshape(batch_size, 1)
    return state[..., None] if state.ndim == 2 else state


def camera_images(
    batch: Mapping[str, Any], image_keys: Iterable[str], size: tuple[int, int]
) -> Float[Tensor, "b m 3 height width"]:
    """Images of all cameras at time t, each resized to `size` (height, width) in one step by `hlrp.pixels.resize`.

    Raises:
        ValueError: If a camera is missing.
    """
    images = []
    for key in image_keys:
        if key not in batch:
            raise ValueError(f"the batch lacks the camera {key!r}; map yours to it with --rename_map")
        images.append(resize(as_rgb(current(batch[key], ndim=4)), size))
    return torch.stack(images, dim=1)


def foundation_batch(
    batch: Mapping[str, Any],
    image_keys: Iterable[str],
    *,
    size: tuple[int, int],
    instruction: str | None = None,
    labels: LatentActions | None = None,
) -> FoundationBatch:
    """Images at time t, instructions and labels of a LeRobot batch, as input of a foundation model.

    Args:
        batch: A batch of a dataset or an environment.
        image_keys: Camera keys, in the order in which the VLM gets them.
        size: Height and width of the VLM's input, in pixels.
        instruction: Used for samples without a task; None refuses them.
        labels: Latent labels, in training.

    Raises:
        ValueError: If a camera or the instruction is missing, or an instruction is empty.
    """
    images = camera_images(batch, image_keys, size)
    return FoundationBatch(images, instructions(batch, len(images), instruction), labels)


def instructions(batch: Mapping[str, Any], batch_size: int, instead: str | None = None) -> list[str]:
    """One instruction per sample: `task` of the batch (a list, or one text for all), or `instead` if it is empty.

    Raises:
        ValueError: If a sample has no instruction.
    """
    task = batch.get("task")
    if task is None:
        if instead is None:
            raise ValueError(
                "the batch has no 'task'; this policy follows an instruction: name the task of every episode, or one "
                "for all with --policy.instruction"
            )
        task = instead
    texts = [task] * batch_size if isinstance(task, str) else task
    if instead is not None:
        texts = [instead if isinstance(text, str) and not text.strip() else text for text in texts]
    return require_instructions(texts)
