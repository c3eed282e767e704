"""The commands as a shell finds them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SLOW = pytest.mark.slow  # importing LeRobot takes a process many seconds: one of them is enough for every run


@pytest.mark.parametrize(
    ("name", "flag", "mistake"),
    [
        ("hlrp-train-laq", "dataset_root", "is not a LeRobotDataset"),
        pytest.param("hlrp-train-foundation", "dataset_root", "is not a LeRobotDataset", marks=SLOW),
        pytest.param("hlrp-precompute-latent-codes", "laq_path", "is not a LAQ checkpoint", marks=SLOW),
        pytest.param("hlrp-inspect-latents", "laq_path", "is not a LAQ checkpoint", marks=SLOW),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(tmp_path: Path, name: str, flag: str, mistake: str) -> None:
    command = shutil.which(name, path=str(Path(sys.executable).parent))
    assert command is not None
    found = subprocess.run(
        [command, f"--{flag}={tmp_path / 'missing'}", f"--output_dir={tmp_path / 'out'}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 2
    assert found.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'missing'} {mistake}")
    assert "Traceback" not in found.stderr
    assert found.stdout == ""
    assert list(tmp_path.iterdir()) == []
