"""Every precision that `--help` lists, for every stage and backend, on a CPU: it trains, or is refused at once."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

from hlrp.cli.train_foundation import TrainFoundationConfig, train_foundation
from hlrp.cli.train_laq import TrainLAQConfig, train_laq
from hlrp.foundation.backends import BackendConfig, QwenVLChatConfig, SmolLatentHeadConfig
from hlrp.foundation.checkpoint import load_foundation
from hlrp.foundation.lora import LoRASettings
from hlrp.training.config import PrecisionName, TrainerConfig

PRECISIONS = [name for name in get_args(PrecisionName) if name != "16-mixed"]
QWEN = QwenVLChatConfig(embedded_size="debug", image_size=(32, 32), random_shift_px=2)
SMOL = SmolLatentHeadConfig(embedded_size="debug", image_size=(32, 32), random_shift_px=2)
HALF: dict[str, Any] = {"dtype": "bfloat16"}
LORA: dict[str, Any] = {"lora": LoRASettings(rank=2)}
BACKENDS: dict[str, BackendConfig] = {
    "qwen": QWEN,
    "qwen, lora": replace(QWEN, **LORA),
    "qwen in bfloat16": replace(QWEN, **HALF),
    "qwen in bfloat16, vision frozen": replace(QWEN, **HALF, freeze_vision_tower=True),
    "qwen in bfloat16, frozen": replace(QWEN, **HALF, freeze_backbone=True),
    "qwen in bfloat16, lora, whole loss": replace(QWEN, **HALF, **LORA, loss_over="vocabulary"),
    "smol with vectors": replace(SMOL, vector_loss_weight=1.0),
    "smol in bfloat16, with vectors": replace(SMOL, **HALF, vector_loss_weight=1.0),
    "smol in bfloat16, vision frozen": replace(SMOL, **HALF, freeze_vision_tower=True),
    "smol in bfloat16, frozen": replace(SMOL, **HALF, freeze_backbone=True),
    "smol in bfloat16, lora, with vectors": replace(SMOL, **HALF, **LORA, vector_loss_weight=1.0),
}


def foundation_config(root: Path, output: Path, backend: BackendConfig, **changes: Any) -> TrainFoundationConfig:
    return TrainFoundationConfig(
        dataset_root=str(root), output_dir=str(output), backend=backend, steps=2, batch_size=4, device="cpu", **changes
    )


FAST = [("qwen in bfloat16, lora, whole loss", "bf16-mixed", True), ("smol in bfloat16, frozen", "32-true", False)]
"""Cases of the fast tests; the slow ones try all."""
CASES = [
    pytest.param(*case, marks=[] if case in FAST else pytest.mark.slow)
    for case in product(BACKENDS, PRECISIONS, (False, True))
]


@pytest.mark.parametrize(("backend", "precision", "online"), CASES)
def test_a_foundation_model_trains(
    labelled_dataset_root: Path, laq_path: Path, tmp_path: Path, backend: str, precision: PrecisionName, online: bool
) -> None:
    config = foundation_config(
        labelled_dataset_root,
        tmp_path / "vla",
        BACKENDS[backend],
        trainer=TrainerConfig(precision=precision, ema_decay=0.9),
        laq_path=str(laq_path) if online else None,
    )
    figures = train_foundation(config)
    assert torch.isfinite(torch.tensor(list(figures.values()))).all()
    load_foundation(tmp_path / "vla")


def test_weights_that_were_trained_are_loaded_unrounded(labelled_dataset_root: Path, tmp_path: Path) -> None:
    train_foundation(foundation_config(labelled_dataset_root, tmp_path / "vla", BACKENDS["qwen in bfloat16"]))
    saved = load_file(tmp_path / "vla" / "model.safetensors")
    loaded = load_foundation(tmp_path / "vla").backend.state_dict()
    for name, value in saved.items():
        assert torch.equal(loaded[name].double(), value.double()), name
    assert any(bool((value != value.bfloat16().float()).any()) for value in saved.values() if value.is_floating_point())


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("quantizer", ["kmeans", "fsq", "nsvq", "vq", "simvq", "rvq", "continuous"])
def test_a_quantizer_trains(image_dataset_root: Path, tmp_path: Path, quantizer: Any, precision: PrecisionName) -> None:
    quality = train_laq(
        TrainLAQConfig(
            dataset_root=str(image_dataset_root),
            output_dir=str(tmp_path / "laq"),
            preset="debug",
            quantizer=quantizer,
            steps=2,
            batch_size=4,
            trainer=TrainerConfig(precision=precision, ema_decay=0.9),
            device="cpu",
        )
    )
    assert quality is not None


def test_float16_on_a_cpu_is_refused_before_any_data_is_read(tmp_path: Path) -> None:
    trainer = TrainerConfig(precision="16-mixed")
    missing, output = str(tmp_path / "missing"), str(tmp_path / "out")
    with pytest.raises(ValueError, match="precision 16-mixed needs a GPU; use bf16-mixed or 32-true on a CPU"):
        train_laq(TrainLAQConfig(dataset_root=missing, output_dir=output, trainer=trainer, device="cpu"))
    with pytest.raises(ValueError, match="precision 16-mixed needs a GPU; use bf16-mixed or 32-true on a CPU"):
        train_foundation(foundation_config(tmp_path / "missing", tmp_path / "out", QWEN, trainer=trainer))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("dtype", "precision"), [("float16", "bf16-mixed"), ("bfloat16", "16-mixed")])
def test_weights_of_one_half_type_and_arithmetic_in_the_other_are_refused(dtype: str, precision: PrecisionName) -> None:
    with pytest.raises(ValueError, match=f"weights of {dtype} cannot compute in {precision}"):
        TrainFoundationConfig(
            backend=replace(QWEN, dtype=dtype, freeze_backbone=True), trainer=TrainerConfig(precision=precision)
        )
