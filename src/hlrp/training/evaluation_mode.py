"""Evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, cast

import torch
from torch import nn


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Inside the block nothing is shifted, dropped, counted or recomputed; afterwards every part is in its mode again.

    Gradient checkpointing, for one, would drop the key-value cache.
    """
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:  # not `train()`: parts of one module may have been in different modes
            part.training = True


def inference[Method: Callable[..., Any]](method: Method) -> Method:
    """A method of a module that runs in evaluation mode and without gradients, whatever the module's mode is."""

    @wraps(method)
    def run(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with evaluation_mode(self), torch.no_grad():
            return method(self, *args, **kwargs)

    return cast(Method, run)
