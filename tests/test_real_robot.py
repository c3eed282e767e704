"""The workflow on a real robot's dataset: 26 joints, AV1 video, 30 fps. The dataset does not come with the project."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATASET = Path(os.environ.get("HLRP_REAL_DATASET", ROOT.parent / "shared" / "data" / "g1_pick_bottle"))
STEPS = 40

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not DATASET.is_dir(), reason=f"no real-robot dataset at {DATASET}; name one with HLRP_REAL_DATASET"
    ),
]


def test_every_stage_trains_on_a_real_robots_dataset(tmp_path: Path) -> None:
    bin_dir = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}", "STEPS": str(STEPS)}
    environment.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS=str(os.cpu_count()))
    run = subprocess.run(
        ["bash", str(ROOT / "examples" / "real_robot.sh"), str(DATASET), str(tmp_path / "out")],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    out = tmp_path / "out"
    for stage, column in (("laq", "train/loss"), ("foundation", "train/loss")):
        losses = curve(out / stage / "curves.csv", column)
        assert losses[-1] < losses[0], f"{stage}: {losses}"
    policy = [float(value) for value in re.findall(r"\bloss:([\d.]+)", run.stdout + run.stderr)]
    assert policy[-1] < policy[0], policy
    assert (out / "policy" / "checkpoints" / "last" / "pretrained_model" / "model.safetensors").is_file()


def curve(path: Path, column: str) -> list[float]:
    with path.open(newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file) if row[column]]
