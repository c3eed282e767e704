from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import draccus
import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from hlrp.cli.train_foundation import TrainFoundationConfig
from hlrp.foundation.backends import (
    BackendConfig,
    FoundationLoss,
    QwenVLChatBackend,
    QwenVLChatConfig,
    build_backend,
)
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.online_labels import OnlineLabelBatch, OnlineLabels
from hlrp.foundation.predictions import CodePredictions
from hlrp.foundation.vla_backend_module import VLABackendModule
from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import LatentActions, LatentSpec
from hlrp.measure.code_accuracy import code_accuracy, code_counts, validation_log
from hlrp.training.optimization import OptimizerConfig, lr_fraction, parameter_groups
from hlrp.training.row_draws import RowDraws
from labelled_batch import codes_of, with_labels


class TwoLosses(QwenVLChatBackend):
    """Whose loss has a part of its own name: here, the number of samples."""

    def loss(self, batch: FoundationBatch) -> FoundationLoss:
        return replace(super().loss(batch), terms={"size": torch.tensor(float(len(batch)))})


def quiet_trainer(folder: Path, *, max_epochs: int = -1, max_steps: int = -1, precision: Any = None) -> pl.Trainer:
    return pl.Trainer(
        precision=precision,
        max_epochs=max_epochs,
        max_steps=max_steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


def loader(batches: Sequence[FoundationBatch | OnlineLabelBatch]) -> DataLoader[FoundationBatch | OnlineLabelBatch]:
    return DataLoader(batches, batch_size=None)  # pyright: ignore[reportArgumentType]


def metrics_with(training_counts: Tensor | None = None) -> Callable[[CodePredictions], dict[str, float]]:
    """The metrics that the training command logs, for codebooks of eight entries."""
    return lambda found: validation_log(code_accuracy(found, codebook_size=8, training_counts=training_counts))


def validated(
    module: VLABackendModule, batches: Sequence[FoundationBatch | OnlineLabelBatch], folder: Path
) -> dict[str, float]:
    (logged,) = quiet_trainer(folder).validate(module, loader(batches), verbose=False)
    return dict(logged)


def parts_of(batch: FoundationBatch, *sizes: int) -> list[FoundationBatch]:
    assert batch.labels is not None
    return [
        FoundationBatch(batch.images[rows], [batch.instructions[row] for row in rows], batch.labels.rows(rows))
        for rows in torch.arange(len(batch)).split(list(sizes))
    ]


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
    module = VLABackendModule(make_backend(scale=3), OptimizerConfig(lr=1e-2, warmup_steps=2), metrics=metrics_with())
    trainer = quiet_trainer(tmp_path, max_epochs=2)
    trainer.fit(module, loader([batch] * 12), loader([batch]))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert set(trainer.progress_bar_metrics) == {"train/loss", "train/teacher_forced_accuracy"}
    assert logged["val/teacher_forced_accuracy"] > logged["val/constant_guess_accuracy"]
    assert logged["train/loss"] < 1.5
    assert {
        "val/loss",
        "val/decoded_accuracy",
        "val/exact_sequence_accuracy",
        "train/teacher_forced_accuracy_slot_3",
    } <= set(logged)


@pytest.mark.parametrize("kind", ["qwen3vl_chat", "smol_latent_head"])
def test_parts_of_a_batch_with_its_augmentation_teach_what_the_batch_teaches(kind: str) -> None:
    choice = BackendConfig.get_choice_class(kind)
    backend = build_backend(choice(embedded_size="debug", image_size=(32, 32), random_shift_px=4), LatentSpec()).train()
    batch = FoundationBatch(
        torch.rand(4, 2, 3, 32, 32), ["Open a drawer"] * 4, LatentActions.of_codes(torch.randint(8, (4, 4)))
    )
    gradients = []
    for parts in (1, 2):
        backend.zero_grad()
        for index in range(parts):
            part = FoundationBatch(
                batch.images.chunk(parts)[index],
                batch.instructions[: 4 // parts],
                LatentActions.of_codes(codes_of(batch).chunk(parts)[index]),
                draws=RowDraws.of_part(7, index, parts, batch_size=4),
            )
            (backend.loss(part).loss / parts).backward()
        assert backend.draws == 8
        gradients.append([p.grad.clone() for p in backend.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def usage_recipe() -> TrainFoundationConfig:
    """The command of docs/usage.md for a model of two billion parameters."""
    guide = (Path(__file__).parents[2] / "docs/usage.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(r"^hlrp-train-foundation (.*Cosmos.*)$", guide, re.MULTILINE)
    return draccus.parse(TrainFoundationConfig, args=shlex.split(command, comments=True))


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_the_recipe_of_a_large_model_moves_nearly_every_weight(tmp_path: Path, dtype: str | None) -> None:
    recipe = usage_recipe()
    dtype = dtype or recipe.backend.dtype
    config = QwenVLChatConfig(embedded_size="debug", image_size=(32, 32), dtype=dtype)
    batch = FoundationBatch(
        torch.rand(8, 1, 3, 32, 32), ["Open a drawer"] * 8, LatentActions.of_codes(torch.randint(8, (8, 4)))
    )
    module = VLABackendModule(build_backend(config, LatentSpec()), recipe.optimizer)
    before = [value.detach().clone() for value in module.parameters()]
    trainer = quiet_trainer(tmp_path, max_steps=3, precision=recipe.trainer.precision)
    trainer.fit(module, loader([batch] * 3))
    moments = [trainer.optimizers[0].state[value] for value in module.parameters()]
    moved = [
        (value != was)[moment["exp_avg_sq"] > 0]
        for value, was, moment in zip(module.parameters(), before, moments, strict=True)
    ]
    assert torch.cat(moved).numel() > 10_000
    assert torch.cat(moved).float().mean() > 0.99


def test_the_logged_guess_is_the_best_constant_one(
    backend: QwenVLChatBackend, batch: FoundationBatch, tmp_path: Path
) -> None:
    codes = torch.tensor([[1, 2, 3, 4], [1, 2, 0, 0], [1, 5, 5, 5]])
    labelled = with_labels(batch, codes=codes, valid=torch.tensor([True, True, False]))
    logged = validated(VLABackendModule(backend, metrics=metrics_with()), [labelled], tmp_path)
    assert logged["val/constant_guess_accuracy"] == pytest.approx(6 / 8)


def test_validation_figures_do_not_depend_on_how_frames_fall_into_batches(
    shared_backend: QwenVLChatBackend, batch: FoundationBatch, tmp_path: Path
) -> None:
    labelled = with_labels(batch, valid=torch.tensor([True, False, True]))
    module = VLABackendModule(shared_backend, metrics=metrics_with())
    whole = validated(module, [labelled], tmp_path)
    assert module.predictions is not None
    assert module.predictions.counted.tolist() == [True, False, True]
    assert whole["val/loss"] == pytest.approx(float(shared_backend.loss(labelled).loss.detach()), rel=1e-5)
    assert set(whole) == {
        "val/loss", "val/teacher_forced_accuracy", "val/decoded_accuracy", "val/exact_sequence_accuracy",
        "val/constant_guess_accuracy", "val/calibration_error",
        *(f"val/teacher_forced_accuracy_slot_{slot}" for slot in range(4)),
    }  # fmt: skip
    assert validated(module, parts_of(labelled, 1, 2), tmp_path) == pytest.approx(whole, rel=1e-4)


def test_the_constant_guess_may_be_that_of_training(
    backend: QwenVLChatBackend, batch: FoundationBatch, tmp_path: Path
) -> None:
    codes = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 4], [5, 5, 5, 5]])
    labelled = with_labels(batch, codes=codes)
    module = VLABackendModule(backend, metrics=metrics_with(code_counts(codes[2:], 8)))
    assert validated(module, [labelled], tmp_path)["val/constant_guess_accuracy"] == pytest.approx(1 / 3)


def test_parts_of_the_loss_are_logged_by_name(
    debug_config: QwenVLChatConfig, batch: FoundationBatch, tmp_path: Path
) -> None:
    module = VLABackendModule(TwoLosses.build(debug_config, LatentSpec()))
    parts = parts_of(batch, 1, 2)
    assert validated(module, parts, tmp_path)["val/size_loss"] == pytest.approx(
        (1 * 1 + 2 * 2) / 3
    )  # weighed by labels
    trainer = quiet_trainer(tmp_path, max_steps=2)
    trainer.fit(module, loader(parts))
    assert float(trainer.callback_metrics["train/size_loss"]) == 2.0


def test_clips_are_labelled_on_the_way_and_teach_the_same_as_their_labels(
    make_backend: Callable[..., QwenVLChatBackend],
    debug_config: QwenVLChatConfig,
    batch: FoundationBatch,
    tmp_path: Path,
) -> None:
    spec = LatentSpec(codebook_size=4, code_seq_len=2, code_dim=4)
    laq = LatentActionQuantizer(replace(debug(), spec=spec))
    online = OnlineLabels(laq)
    taught = OnlineLabelBatch(replace(batch, labels=None), torch.randint(256, (3, 2, 1, 3, 32, 32), dtype=torch.uint8))
    labelled = online.label(taught)
    backend = make_backend(debug_config, spec)
    module = VLABackendModule(backend, metrics=metrics_with(), online=online)
    assert not any("teacher" in name or "online" in name for name in module.state_dict())
    found = validated(module, [taught], tmp_path)
    assert module.predictions is not None
    assert torch.equal(module.predictions.codes, codes_of(labelled))
    assert found == validated(VLABackendModule(backend, metrics=metrics_with()), [labelled], tmp_path)
    quiet_trainer(tmp_path, max_steps=1).fit(module, loader([taught]))
    assert all(parameter.grad is None for parameter in laq.parameters())
