from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from hlrp.foundation.backends import QwenVLChatBackend
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.vla_backend_module import VLABackendModule
from hlrp.optimization import OptimizerConfig, lr_fraction, parameter_groups


def test_the_learning_rate_warms_up_and_decays() -> None:
    config = OptimizerConfig(warmup_steps=4, final_lr_fraction=0.1)
    rates = [lr_fraction(step, total_steps=20, config=config) for step in range(25)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:21] == sorted(rates[4:21], reverse=True)
    assert rates[20:] == pytest.approx([0.1] * 5)


def test_biases_and_norms_have_no_weight_decay(shared_backend: QwenVLChatBackend) -> None:
    matrices, vectors = parameter_groups(shared_backend, 0.1)
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    counted = len(list(shared_backend.parameters()))
    assert sum(len(group["params"]) for group in (matrices, vectors)) == counted  # pyright: ignore[reportArgumentType]


def test_a_model_with_nothing_to_train_is_refused(backend: QwenVLChatBackend) -> None:
    with pytest.raises(ValueError, match="no trainable parameter"):
        parameter_groups(backend.requires_grad_(False), 0.1)


def test_lightning_trains_validates_and_logs(
    make_backend: Callable[..., QwenVLChatBackend], batch: FoundationBatch, tmp_path: Path
) -> None:
    module = VLABackendModule(make_backend(scale=3), OptimizerConfig(lr=1e-2, warmup_steps=2))
    loader = DataLoader([batch] * 12, batch_size=None)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, loader, DataLoader([batch], batch_size=None))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert logged["val/accuracy"] > logged["val/marginal_accuracy"]
    assert logged["train/loss"] < 1.5
    assert {
        "val/loss",
        "val/decoded_accuracy",
        "val/exact_sequence_accuracy",
        "train/accuracy_slot_3",
    } <= set(logged)


def test_the_marginal_baseline_is_the_best_constant_guess(
    backend: QwenVLChatBackend, batch: FoundationBatch, tmp_path: Path
) -> None:
    codes = torch.tensor([[1, 2, 3, 4], [1, 2, 0, 0], [1, 5, 5, 5]])
    labelled = FoundationBatch(batch.images, batch.instructions, codes, torch.tensor([True, True, False]))
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    (logged,) = trainer.validate(VLABackendModule(backend), DataLoader([labelled], batch_size=None), verbose=False)
    assert logged["val/marginal_accuracy"] == pytest.approx(6 / 8)
