"""Training commands as a shell starts them: processes of their own, one thread each, offline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file


def trained_weights(module: str, output: Path, *flags: str, says: str) -> dict[str, torch.Tensor]:
    """Run `python -m module` into the folder `output`; one process of it prints `says`, and nothing else is left."""
    command = (sys.executable, "-m", module, f"--output_dir={output}", "--device=cpu", *flags)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    found = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, env=environment)
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout.count(says) == 1
    assert sorted(path.name for path in output.parent.iterdir()) == [output.name]
    return load_file(output / "model.safetensors")
