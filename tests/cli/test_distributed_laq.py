"""`hlrp-train-laq` on two processes, as a shell starts it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from command_runs import trained_weights

pytestmark = pytest.mark.slow  # every process imports LeRobot


def train(dataset: Path, output: Path, *flags: str) -> dict[str, torch.Tensor]:
    """Weights after three steps."""
    sizes = ("--preset=debug", "--steps=3", "--batch_size=16")
    return trained_weights(
        "hlrp.cli.train_laq", output, f"--dataset_root={dataset}", *sizes, *flags, says="probe R² of codes"
    )


@pytest.mark.parametrize(
    ("quantizer", "strategy"), [("kmeans", "ddp"), ("kmeans", "fsdp"), ("fsq", "ddp"), ("nsvq", "ddp")]
)
def test_two_processes_train_the_quantizer_that_one_trains(
    image_dataset_root: Path, tmp_path: Path, quantizer: str, strategy: str
) -> None:
    flags = (f"--quantizer={quantizer}", "--num_frames=3", "--frame_offset_s=0.2")
    one = train(image_dataset_root, tmp_path / "one" / "laq", *flags)
    two = train(
        image_dataset_root, tmp_path / "two" / "laq", *flags, "--trainer.devices=2", f"--trainer.strategy={strategy}"
    )
    assert one.keys() == two.keys()
    # Whitening enlarges what differs in the last bits of the encoder: its directions are numbers up to 20.
    torch.testing.assert_close(two, one, atol=1e-2 if quantizer == "kmeans" else 2e-4, rtol=1e-3)
    losses = [(tmp_path / name / "laq" / "curves.csv").read_text().splitlines() for name in ("one", "two")]
    assert len(losses[0]) == len(losses[1])
    extra = [json.loads((tmp_path / name / "laq" / "laq.json").read_text())["extra"] for name in ("one", "two")]
    assert extra[0] == extra[1]
