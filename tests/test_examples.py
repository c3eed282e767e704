"""What the example scripts ask of the commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "real_robot.sh"
COMMANDS = ("hlrp-train-laq", "hlrp-precompute-latent-codes", "hlrp-train-foundation", "lerobot-train")


@pytest.mark.slow
@pytest.mark.parametrize(("fps", "offset", "chunk"), [(30, "0.1", 3), (50, "0.25", 12)])
def test_the_chunk_of_the_real_robots_policy_is_what_a_code_spans(
    tmp_path: Path, fps: int, offset: str, chunk: int
) -> None:
    for name in COMMANDS:  # the trainings themselves are tested elsewhere
        (tmp_path / name).write_text('#!/bin/sh\necho "$(basename $0) $@"\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / "data" / "meta").mkdir(parents=True)
    (tmp_path / "data" / "meta" / "info.json").write_text(json.dumps({"fps": fps}))
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    run = subprocess.run(
        ["bash", str(SCRIPT), str(tmp_path / "data"), str(tmp_path / "out")],
        env={**os.environ, "PATH": path, "OFFSET_S": offset}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"--policy.chunk_size={chunk} --policy.n_action_steps={chunk}" in run.stdout
    assert f"--frame_offset_s={offset}" in run.stdout
