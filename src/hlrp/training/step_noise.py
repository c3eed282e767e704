"""Random numbers of a training step that are a function of the run's seed, the step and the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from hlrp.training.ranks import rank_and_world_size


@contextmanager
def noise_of_step(seed: int, step: int, *, device: torch.device) -> Iterator[None]:
    """Run the block with the random numbers of one training step; torch's random state is the same before and after.

    A run that is resumed at this step therefore draws the same noise and dropout as an uninterrupted one, although a
    data loader may have drawn from the random state in between. Processes that a trainer has seeded alike, as
    accelerate does, draw different numbers for their rows.

    Args:
        seed: Seed of the run, at least 0.
        step: Number of the step, at least 0.
        device: Device of the model.
    """
    rank, _ = rank_and_world_size()
    drawn = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(drawn[0]))
        yield
