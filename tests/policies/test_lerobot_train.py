"""LeRobot's own trainer and evaluation, driven in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from lerobot.scripts import lerobot_train
from safetensors.torch import load_file

from policy_workshop import Workshop


def train(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    monkeypatch.setattr(sys, "argv", ["lerobot-train", *flags])
    lerobot_train.train()


def fresh(workshop: Workshop, output: Path, *, steps: int) -> tuple[str, ...]:
    return (
        "--policy.type=hlrp_vla_direct",
        "--policy.push_to_hub=false",
        "--policy.device=cpu",
        f"--policy.vla_checkpoint_path={workshop.foundation}",
        "--policy.chunk_size=4",
        "--policy.decoder_hidden_dim=16",
        "--policy.scheduler_warmup_steps=2",
        "--dataset.repo_id=local/moving_square",
        f"--dataset.root={workshop.dataset_root}",
        "--batch_size=4",
        f"--steps={steps}",
        "--save_freq=3",
        "--log_freq=3",
        "--num_workers=0",
        f"--output_dir={output}",
    )


def weights(output: Path, step: str) -> dict[str, torch.Tensor]:
    return load_file(output / "checkpoints" / step / "pretrained_model" / "model.safetensors")


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(monkeypatch, *fresh(workshop, tmp_path / "whole", steps=6))
    saved = tmp_path / "whole" / "checkpoints" / "000003" / "pretrained_model" / "train_config.json"
    through = weights(tmp_path / "whole", "000006")
    (tmp_path / "whole" / "checkpoints" / "last").unlink()
    train(monkeypatch, f"--config_path={saved}", "--resume=true", f"--output_dir={tmp_path / 'whole'}")
    resumed = weights(tmp_path / "whole", "000006")
    start = weights(tmp_path / "whole", "000003")
    assert through.keys() == resumed.keys()
    assert any(not torch.equal(start[name], through[name]) for name in through)
    for name, value in through.items():
        torch.testing.assert_close(resumed[name], value, atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
