"""Run a block or a method in evaluation mode, and restore the training mode of every part of a module afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, cast

import torch
from torch import nn


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Run the block with `module` in evaluation mode: no augmentation, no dropout, no updates of running statistics.

    Gradient checkpointing is off too, which in training mode would disable the key-value cache.
    """
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:  # not `train()`: parts of one module may have been in different modes
            part.training = True


def inference[Method: Callable[..., Any]](method: Method) -> Method:
    """Decorator for a module's method: it runs in evaluation mode and without gradients, whatever the module's mode."""

    @wraps(method)
    def run(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with evaluation_mode(self), torch.no_grad():
            return method(self, *args, **kwargs)

    return cast(Method, run)
