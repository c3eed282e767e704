"""`hlrp-train-laq` on two processes, as a shell starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow  # every process imports LeRobot


def train(dataset: Path, output: Path, *flags: str) -> dict[str, torch.Tensor]:
    """Weights after three steps."""
    command = (
        *(sys.executable, "-m", "hlrp.cli.train_laq", f"--dataset_root={dataset}", f"--output_dir={output}"),
        *("--preset=debug", "--steps=3", "--batch_size=16", "--device=cpu", "--quantizer=fsq", *flags),
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    found = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, env=environment)
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout.count("probe R² of codes") == 1  # one process measures and prints
    assert sorted(path.name for path in output.parent.iterdir()) == [output.name]
    return load_file(output / "model.safetensors")


def test_two_processes_train_the_quantizer_that_one_trains(image_dataset_root: Path, tmp_path: Path) -> None:
    one = train(image_dataset_root, tmp_path / "one" / "laq")
    two = train(image_dataset_root, tmp_path / "two" / "laq", "--trainer.devices=2", "--trainer.strategy=ddp")
    assert one.keys() == two.keys()
    torch.testing.assert_close(two, one, atol=2e-4, rtol=1e-3)
    losses = [(tmp_path / name / "laq" / "curves.csv").read_text().splitlines() for name in ("one", "two")]
    assert len(losses[0]) == len(losses[1])
    extra = [json.loads((tmp_path / name / "laq" / "laq.json").read_text())["extra"] for name in ("one", "two")]
    assert extra[0] == extra[1]
