"""What of a finished run becomes the folder `pretrained/`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hlrp.demo.pipeline import main_stages
from hlrp.demo.pretraining import PretrainingConfig, keep_models

SHIPPED = Path(__file__).parents[2] / "pretrained"
PLOTS = dict.fromkeys(("success", "reconstruction", "latent_quality", "code_usage", "loss_curves"), b"png")


@pytest.fixture
def run(tmp_path: Path) -> PretrainingConfig:
    """A finished run with the shipped models as its results."""
    config = PretrainingConfig(output_dir=tmp_path / "run", tasks=["a", "b"], eval_episodes_per_task=2)
    shutil.copytree(SHIPPED / "laq", config.laq)
    shutil.copytree(SHIPPED / "foundation", config.foundation)
    policy = config.training("hlrp_vla_direct") / "checkpoints" / "last" / "pretrained_model"
    shutil.copytree(SHIPPED / "policy", policy)
    (policy / "train_config.json").write_text("{}")
    evaluated = [{"task_group": task, "metrics": {"successes": [True, task == "a"]}} for task in config.tasks]
    config.evaluation("hlrp_vla_direct").mkdir()
    (config.evaluation("hlrp_vla_direct") / "eval_info.json").write_text(json.dumps({"per_task": evaluated}))
    report = {
        "laq": json.loads((SHIPPED / "laq" / "quality.json").read_text()),
        "foundation": json.loads((SHIPPED / "foundation" / "metrics.json").read_text())["quality"],
        "policies": {"hlrp_vla_direct": {"success_rate": 0.75, "episodes": 4, "interval": [0.3, 0.95]}},
    }
    (config.output_dir / "report.json").write_text(json.dumps(report))
    return config


def test_the_models_are_kept_with_cards_and_figures(run: PretrainingConfig, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    keep_models(run, kept, PLOTS)
    assert (kept / "laq" / "model.safetensors").read_bytes() == (run.laq / "model.safetensors").read_bytes()
    assert "75% of 4 episodes solved (30% … 95%)" in (kept / "README.md").read_text()
    assert "| a | 100% " in (kept / "policy" / "README.md").read_text()
    assert json.loads((kept / "policy" / "metrics.json").read_text())["tasks"] == {"a": 1.0, "b": 0.5}
    assert not (kept / "policy" / "train_config.json").exists()
    assert sorted(path.stem for path in (kept / "figures").iterdir()) == sorted(set(PLOTS) - {"loss_curves"})


def test_kept_models_are_replaced_but_nothing_else_is(run: PretrainingConfig, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    for _ in range(2):
        keep_models(run, kept, PLOTS)
    (kept / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        keep_models(run, kept, PLOTS)
    assert (kept / "notes.txt").read_text() == "mine"


def test_an_unfinished_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"report\.json"):
        keep_models(PretrainingConfig(output_dir=tmp_path), tmp_path / "kept", PLOTS)


def test_the_run_trains_a_tiny_laq_on_a_dataset_with_a_telling_name() -> None:
    commands = {stage.name: stage.command for stage in main_stages(PretrainingConfig())}
    assert "--preset=tiny" in commands["laq"]
    assert "--dataset_root=outputs/pretrained/metaworld_six_tasks" in commands["laq"]
    assert "--steps=1500" in commands["hlrp_vla_direct"]
