from __future__ import annotations

import csv
import signal
from collections.abc import Iterator
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from hlrp.optimization import OptimizerConfig, lightning_optimizers
from hlrp.training import CURVES_FILE, StepData, TrainingRun

STEPS = 10


class Numbers(Dataset[Tensor]):
    """Batch `i` depends on `i` alone; remembers which were read."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, step: int) -> Tensor:
        if step >= self.length:
            raise IndexError(step)
        self.read.append(step)
        return torch.randn(8, 4, generator=torch.Generator().manual_seed(step))


class Task(pl.LightningModule):
    """Fits the sum of four numbers, with dropout and batch statistics; fails on request."""

    def __init__(self, fail_at: int | None = None, error: type[BaseException] = RuntimeError) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.fail_at, self.error = fail_at, error

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if self.global_step == self.fail_at:
            raise self.error("on request")
        loss = (self.net(batch).squeeze(-1) - batch.sum(-1)).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/error", (self.net(batch).squeeze(-1) - batch.sum(-1)).abs().mean())

    def configure_optimizers(self) -> dict[str, object]:
        total = int(self.trainer.estimated_stepping_batches)
        return lightning_optimizers(self.net, OptimizerConfig(warmup_steps=2), total_steps=total)


@pytest.fixture(autouse=True)
def keep_interrupts() -> Iterator[None]:
    """Lightning ignores Ctrl+C after the first one; later tests must not."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def fit(
    output: Path,
    *,
    resume: bool = False,
    fail_at: int | None = None,
    error: type[BaseException] = RuntimeError,
    num_workers: int = 0,
) -> tuple[Task, dict[str, float], Numbers]:
    torch.manual_seed(0)
    task, data = Task(fail_at, error), Numbers(STEPS)
    run = TrainingRun(output, resume=resume)
    figures = run.fit(
        task,
        StepData(data, Numbers(2), num_workers=num_workers),
        steps=STEPS,
        save_every=3,
        validate_every=STEPS,
        device="cpu",
        log_every=1,
    )
    output.mkdir()
    run.finish()
    return task, figures, data


def curve(output: Path) -> dict[int, float]:
    with (output / CURVES_FILE).open() as file:
        return {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]}


def assert_same_weights(one: Task, other: Task) -> None:
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_a_run_reads_every_step_once_in_order_and_reports_its_last_figures(tmp_path: Path) -> None:
    _, figures, data = fit(tmp_path / "out")
    assert data.read == list(range(STEPS))
    assert set(figures) >= {"train/loss", "val/error"}
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert list(curve(tmp_path / "out")) == list(range(STEPS))


@pytest.mark.parametrize(("error", "raised"), [(RuntimeError, RuntimeError), (KeyboardInterrupt, SystemExit)])
def test_an_interrupted_and_resumed_run_ends_with_the_very_same_weights(
    tmp_path: Path, error: type[BaseException], raised: type[BaseException]
) -> None:
    whole, figures, _ = fit(tmp_path / "whole")
    with pytest.raises(raised):
        fit(tmp_path / "parts", fail_at=7, error=error)
    assert not (tmp_path / "parts").exists()

    resumed, resumed_figures, data = fit(tmp_path / "parts", resume=True)
    assert data.read == [6, 7, 8, 9]
    assert_same_weights(whole, resumed)
    assert resumed_figures == figures


def test_a_resumed_run_keeps_the_curve_from_its_first_step_on(tmp_path: Path) -> None:
    fit(tmp_path / "whole")
    with pytest.raises(RuntimeError):
        fit(tmp_path / "parts", fail_at=7)
    with pytest.raises(RuntimeError):
        fit(tmp_path / "parts", resume=True, fail_at=8)
    fit(tmp_path / "parts", resume=True)
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


def test_a_run_that_had_trained_to_its_end_still_reports_its_validation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = TrainingRun(tmp_path / "out", resume=False)
    settings = {"steps": 6, "save_every": 3, "validate_every": 6, "device": "cpu"}
    figures = whole.fit(Task(), StepData(Numbers(6), Numbers(2), num_workers=0), **settings)
    again = TrainingRun(tmp_path / "out", resume=True)  # as after a full disk while `out` was written
    figures_again = again.fit(Task(), StepData(Numbers(6), Numbers(2), num_workers=0), **settings)
    assert figures_again["val/error"] == figures["val/error"]


def test_worker_processes_change_nothing(tmp_path: Path) -> None:
    alone, _, _ = fit(tmp_path / "alone")
    helped, _, _ = fit(tmp_path / "helped", num_workers=1)
    assert_same_weights(alone, helped)


def test_an_unfinished_run_is_neither_overwritten_nor_resumed_unasked(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fit(tmp_path / "out", fail_at=7)
    with pytest.raises(FileExistsError, match="unfinished run; continue it with --resume=true or remove"):
        fit(tmp_path / "out")


def test_a_run_stopped_before_its_first_state_says_to_remove_it_and_not_to_resume(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fit(tmp_path / "out", fail_at=1)
    for resume, error in ((True, FileNotFoundError), (False, FileExistsError)):
        with pytest.raises(error, match=r"remove .*out\.training") as caught:
            TrainingRun(tmp_path / "out", resume=resume)
        assert "continue it" not in str(caught.value)


def test_resuming_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing to resume: .* run without --resume"):
        TrainingRun(tmp_path / "out", resume=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resume", [False, True])
def test_a_complete_output_is_never_trained_over(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="already exists"):
        TrainingRun(tmp_path, resume=resume)
