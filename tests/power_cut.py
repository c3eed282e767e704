"""Trainings that end as in a power cut, so that tests can resume them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import pytest


@contextmanager
def power_cut(
    monkeypatch: pytest.MonkeyPatch, module: type[pl.LightningModule], *, at_step: int | None = None
) -> Iterator[None]:
    """End the training in the block at step `at_step`; without it, when the state of the last step is saved."""
    step = module.training_step

    def cut_at_step(self: pl.LightningModule, *args: Any) -> Any:
        if self.global_step == at_step:
            raise RuntimeError("power cut")
        return step(self, *args)

    def cut_at_end(self: pl.LightningModule) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        if at_step is None:
            patch.setattr(module, "on_train_end", cut_at_end)
        else:
            patch.setattr(module, "training_step", cut_at_step)
        with pytest.raises(RuntimeError, match="power cut"):
            yield
