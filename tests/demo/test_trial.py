"""A trial of a policy: what is refused, what is picked from the videos, and the whole of it on a short episode."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from lerobot.utils.io_utils import write_video

from hlrp.demo.trial import try_policy
from hlrp.demo.trial_config import TrialConfig
from hlrp.demo.trial_results import imagined_moments
from hlrp.laq.checkpoint import load_laq

MODELS = Path(__file__).parents[2] / "pretrained"


def test_missing_models_are_refused_before_the_simulation(tmp_path: Path) -> None:
    config = TrialConfig(models=tmp_path / "nowhere", output_dir=tmp_path / "try")
    with pytest.raises(FileNotFoundError, match=r"nowhere/laq"):
        try_policy(config)
    assert not config.output_dir.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes_per_task": 0}, "episodes_per_task must be 1 or more"),
        ({"episode_length": 501}, r"episode_length must be in \[1, 500\]"),
        ({"tasks": []}, "tasks must be at least one"),
        ({"seed": -1}, "seed"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrialConfig(**options)  # pyright: ignore[reportArgumentType]


def recorded(folder: Path, task: str, *, steps: int) -> dict[str, object]:
    """Videos of an episode whose brightness jumps at prediction 5, as lerobot-eval writes them for two environments."""
    brightness = [40 + 100 * (i >= 5) for i in range(steps // 4 + 1)]
    pairs = [np.full((128, 128, 3), 250, dtype=np.uint8) for _ in brightness]  # the second environment is white
    for pair, level in zip(pairs, brightness, strict=True):
        pair[:64, :64], pair[64:, :64] = level, 200  # frame t above what is imagined
    rollout, imagined = folder / f"{task}.mp4", folder / f"{task}_pred.mp4"
    write_video(rollout, [np.zeros((64, 64, 3), dtype=np.uint8)] * (steps + 1), 80)
    write_video(imagined, [pair for pair in pairs for _ in range(4)], 80)
    return {
        "task_group": task,
        "metrics": {"video_paths": [str(rollout)], "predicted_video_paths": [str(imagined)], "successes": [True]},
    }


def test_of_every_episode_the_moment_with_the_most_motion_is_shown_beside_what_the_camera_saw(tmp_path: Path) -> None:
    config = TrialConfig(models=MODELS, output_dir=tmp_path)
    config.evaluation.mkdir()
    tasks = [recorded(tmp_path, "long", steps=40), recorded(tmp_path, "short", steps=7)]
    (config.evaluation / "eval_info.json").write_text(json.dumps({"per_task": tasks}))
    (moment,) = imagined_moments(config, load_laq(config.laq))  # the short episode ends before 0.1 s have passed
    assert moment.name == "long"
    assert moment.now.shape == moment.imagined.shape == moment.then.shape == (64, 64, 3)
    for picture, level in ((moment.now, 40), (moment.imagined, 200), (moment.then, 140)):
        assert abs(picture[8:56, 8:56].mean() - level) < 8


@pytest.mark.slow
def test_a_trial_ends_with_a_page_that_needs_no_other_file(tmp_path: Path) -> None:
    config = TrialConfig(
        models=MODELS, output_dir=tmp_path / "try", tasks=["door-open-v3"], episodes_per_task=2, episode_length=24
    )
    for _ in range(2):  # a second trial replaces the first
        page = try_policy(config).read_text(encoding="utf-8")
    assert "0 of 2" in page
    assert "What the policy imagines" in page
    assert "slot 3" in page
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', page))
    assert len(list((config.output_dir / "rollouts").iterdir())) == 2
