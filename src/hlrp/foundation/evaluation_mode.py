"""Evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Inside the block nothing is shifted, dropped, counted or recomputed; afterwards the mode is that from before.

    Gradient checkpointing, for one, would drop the key-value cache.
    """
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
