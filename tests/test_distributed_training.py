"""Two processes on a CPU, started once for all tests of this file, against one process here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import distributed_training
from distributed_training import Task, train
from hlrp.report.curves import read_lightning_curves
from hlrp.storage.artefacts import CURVES_FILE
from hlrp.training.run import TrainerConfig, TrainingRun


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Folder of the two-process runs, and what their program said."""
    folder = tmp_path_factory.mktemp("two_processes")
    program = subprocess.run(
        [sys.executable, distributed_training.__file__, str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "RANK")},
    )
    return folder, program


@pytest.fixture(scope="module")
def two(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    return finished[0]


def weights(output: Path) -> dict[str, Tensor]:
    return load_file(output / "weights.safetensors")


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_processes_learn_what_one_learns_from_the_same_batches(two: Path, tmp_path: Path, name: str) -> None:
    train(tmp_path / "one", TrainerConfig())
    torch.testing.assert_close(weights(two / name), weights(tmp_path / "one"), rtol=0, atol=1e-5)
    losses = [read_lightning_curves(path / CURVES_FILE)["train/loss"] for path in (two / name, tmp_path / "one")]
    assert losses[0].steps == losses[1].steps
    torch.testing.assert_close(losses[0].values, losses[1].values, rtol=0, atol=1e-5)


def test_accumulation_and_averaging_come_to_the_same_on_two_processes(two: Path, tmp_path: Path) -> None:
    train(tmp_path / "one", TrainerConfig(accumulate=4, ema_decay=0.5))
    torch.testing.assert_close(weights(two / "accumulated"), weights(tmp_path / "one"), rtol=0, atol=1e-5)
    different = [
        not torch.equal(value, weights(two / "ddp")[name]) for name, value in weights(tmp_path / "one").items()
    ]
    assert all(different)  # the average is not the last step


@pytest.mark.parametrize("name", ["ddp", "accumulated"])
def test_both_processes_end_with_equal_weights(two: Path, name: str) -> None:
    torch.testing.assert_close(load_file(two / f"{name}-other.safetensors"), weights(two / name), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_an_interrupted_and_resumed_run_of_two_processes_ends_with_the_very_same_weights(two: Path, name: str) -> None:
    torch.testing.assert_close(weights(two / f"{name}-resumed"), weights(two / name), rtol=0, atol=0)


def test_a_signal_to_any_process_stops_all_of_them_after_the_same_step_and_saves_a_state(two: Path) -> None:
    assert [(two / f"stopped-{rank}").read_text() for rank in (0, 1)] == ["143", "0"]
    torch.testing.assert_close(weights(two / "signal-resumed"), weights(two / "ddp"), rtol=0, atol=0)
    steps = read_lightning_curves(two / "signal-resumed" / CURVES_FILE)["train/loss"].steps
    assert steps == read_lightning_curves(two / "ddp" / CURVES_FILE)["train/loss"].steps


def test_the_weights_of_a_sharded_run_load_strictly_in_one_process(two: Path) -> None:
    Task(None).load_state_dict(weights(two / "fsdp"))


def test_a_gate_stops_both_processes_with_one_sentence_and_keeps_the_state(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, program = finished
    assert program.returncode == 1
    assert program.stderr.count("ValueError: train/loss is") == 1
    assert not (folder / "gate").exists()
    assert (folder / "gate.training" / "last.ckpt").is_file()


def test_only_the_first_process_claims_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TrainingRun(tmp_path / "out", resume=False):
        monkeypatch.setenv("NODE_RANK", "1")
        assert not TrainingRun(tmp_path / "out", resume=False).is_main
        monkeypatch.setenv("NODE_RANK", "0")
        with pytest.raises(FileExistsError):
            TrainingRun(tmp_path / "out", resume=False)
