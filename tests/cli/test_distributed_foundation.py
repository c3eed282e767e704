"""`hlrp-train-foundation` on two processes, as a shell starts it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from command_runs import trained_weights
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.checkpoint import load_foundation

pytestmark = pytest.mark.slow  # every process imports LeRobot


def train(dataset: Path, output: Path, *flags: str) -> dict[str, torch.Tensor]:
    """Weights after three steps."""
    sizes = ("--backend.embedded_size=debug", "--backend.image_size=[32,32]", "--backend.random_shift_px=2")
    sizes = (*sizes, "--steps=3", "--batch_size=16")
    return trained_weights(
        "hlrp.cli.train_foundation", output, f"--dataset_root={dataset}", *sizes, *flags, says="decoded accuracy"
    )


@pytest.mark.parametrize(
    "backend",
    [
        ("--backend.type=qwen3vl_chat",),
        ("--backend.type=smol_latent_head", "--backend.vector_loss_weight=1"),
    ],
)
def test_two_processes_train_the_model_that_one_trains(
    labelled_dataset_root: Path, tmp_path: Path, backend: tuple[str, ...]
) -> None:
    processes = ("--trainer.devices=2", "--trainer.strategy=ddp")
    one = train(labelled_dataset_root, tmp_path / "one" / "vla", *backend)
    two = train(labelled_dataset_root, tmp_path / "two" / "vla", *backend, *processes)
    assert one.keys() == two.keys()
    torch.testing.assert_close(two, one, atol=2e-4, rtol=1e-3)


def test_a_sharded_run_saves_a_checkpoint_that_one_process_loads(labelled_dataset_root: Path, tmp_path: Path) -> None:
    output = tmp_path / "vla" / "vla"
    train(labelled_dataset_root, output, "--trainer.devices=2", "--trainer.strategy=fsdp")
    codes = load_foundation(output).backend.predict(FoundationBatch(torch.rand(2, 1, 3, 32, 32), ["go"] * 2)).codes
    assert codes.shape == (2, 4)
