from __future__ import annotations

import csv
import fcntl
import logging
import multiprocessing
import os
import signal
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import draccus
import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from damaged_files import damaged
from hlrp.runtime.signals import Stopped
from hlrp.storage.artefacts import CURVES_FILE
from hlrp.training.callbacks import QualityGate
from hlrp.training.optimization import OptimizerConfig, lightning_optimizers
from hlrp.training.run import TrainerConfig, TrainingRun
from hlrp.training.step_data import StepData

STEPS = 10
SETTINGS = {"seed": 0, "codebook_size": 8}


class Numbers(Dataset[Tensor]):
    """Batch `i` depends on `i` alone; remembers which were read, and which parts of them."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.read: list[int] = []
        self.parts: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, step: int) -> Tensor:
        if step >= self.length:
            raise IndexError(step)
        self.read.append(step)
        return torch.randn(8, 4, generator=torch.Generator().manual_seed(step))

    def part(self, step: int, index: int, parts: int) -> Tensor:
        self.parts.append((index, parts))
        return self[step][index::parts]


class Task(pl.LightningModule):
    """Fits the sum of four numbers, with dropout and batch statistics; fails on request."""

    def __init__(self, fail_at: int | None = None, error: type[BaseException] = RuntimeError) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.fail_at, self.error = fail_at, error
        self.signals: dict[tuple[str, int], int] = {}
        """What arrives in a training or validation step after so many optimizer steps."""

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if self.global_step == self.fail_at:
            raise self.error("on request")
        self.receive("training")
        loss = (self.net(batch).squeeze(-1) - batch.sum(-1)).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.receive("validation")
        self.log("val/error", (self.net(batch).squeeze(-1) - batch.sum(-1)).abs().mean())

    def receive(self, where: str) -> None:
        """Send the signal that is due to the worker processes and to this one, as a cluster does."""
        if signum := self.signals.pop((where, self.global_step), None):
            for worker in multiprocessing.active_children():
                os.kill(worker.pid or 0, signum)
            os.kill(os.getpid(), signum)

    def configure_optimizers(self) -> dict[str, object]:
        total = int(self.trainer.estimated_stepping_batches)
        return lightning_optimizers(self.net, OptimizerConfig(warmup_steps=2), total_steps=total)


def fit(
    output: Path,
    *,
    resume: bool = False,
    fail_at: int | None = None,
    error: type[BaseException] = RuntimeError,
    num_workers: int = 0,
    trainer: TrainerConfig | None = None,
    plain: bool = False,
    validate_every: int = STEPS,
    signals: dict[tuple[str, int], int] | None = None,
    steps: int = STEPS,
) -> tuple[Task, dict[str, float], Numbers]:
    torch.manual_seed(0)
    task, data = Task(fail_at, error), Numbers(steps)
    if plain:  # neither dropout nor batch statistics, which see only a part of the batch
        task.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    task.signals = dict(signals or {})
    with TrainingRun(output, resume=resume, settings=SETTINGS, resume_command="train --resume") as run:
        figures = run.fit(
            task,
            StepData(data, Numbers(2), num_workers=num_workers),
            steps=steps,
            save_every=3,
            validate_every=validate_every,
            device="cpu",
            log_every=1,
            trainer=trainer,
        )
        run.finish(lambda texts: save(output, texts))
    return task, figures, data


def save(output: Path, texts: Mapping[str, str]) -> None:
    output.mkdir()
    for name, text in texts.items():
        (output / name).write_text(text)


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


def test_a_run_that_is_resumed_with_fewer_steps_keeps_no_row_of_later_ones(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fit(tmp_path / "out", fail_at=8)  # the last state is that of step 6
    fit(tmp_path / "out", resume=True, steps=7)
    assert list(curve(tmp_path / "out")) == list(range(7))


def test_a_run_that_had_trained_to_its_end_still_reports_its_validation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = {"steps": 6, "save_every": 3, "validate_every": 6, "device": "cpu"}
    with TrainingRun(tmp_path / "out", resume=False) as whole:
        figures = whole.fit(Task(), StepData(Numbers(6), Numbers(2), num_workers=0), **settings)
    with TrainingRun(tmp_path / "out", resume=True) as again:  # as after a full disk while `out` was written
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


def test_a_run_that_fails_before_its_first_state_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fit(tmp_path / "out", fail_at=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resume", [False, True])
def test_what_a_killed_run_left_without_a_state_stands_in_nobodys_way(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "out.training").mkdir()
    (tmp_path / "out.training" / "curves.jsonl").write_text('{"train/loss": 0.5, "st')
    (tmp_path / "out.training" / "run.json").write_text("{}")
    (tmp_path / "out.training" / ".last.ckpt.next.partial").write_text("half a state")
    (tmp_path / ".out.lock").write_text("process 1 on another machine")
    _, _, data = fit(tmp_path / "out", resume=resume)
    assert data.read == list(range(STEPS))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_no_run_is_never_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "out.training").mkdir()
    (tmp_path / "out.training" / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match=r"out\.training is in the way and no training run; remove"):
        fit(tmp_path / "out")
    assert (tmp_path / "out.training" / "thesis.tex").is_file()


def test_two_runs_into_one_folder_the_second_is_told_at_its_start(tmp_path: Path) -> None:
    with TrainingRun(tmp_path / "out", resume=False), pytest.raises(FileExistsError, match=r"is writing .*out"):
        TrainingRun(tmp_path / "out", resume=False)
    with (tmp_path / ".out.lock").open("w") as lock:  # as another process would hold it
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FileExistsError, match=r"is writing .*out; wait until it has ended, or choose another"):
            TrainingRun(tmp_path / "out", resume=False)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_a_state_and_tells_how_to_resume(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, signum: int, status: int
) -> None:
    whole, figures, _ = fit(tmp_path / "whole")
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with caplog.at_level(logging.WARNING, "hlrp"), pytest.raises(SystemExit) as exit_:
        fit(tmp_path / "parts", signals={("training", 1): signum})
    assert exit_.value.code == status
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    assert "continue it with\n    train --resume" in caplog.text

    resumed, resumed_figures, data = fit(tmp_path / "parts", resume=True)
    assert data.read == list(range(2, STEPS))
    assert_same_weights(whole, resumed)
    assert resumed_figures == figures
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


def test_a_signal_in_a_validation_ends_it_and_loses_no_step(tmp_path: Path) -> None:
    whole, figures, _ = fit(tmp_path / "whole", validate_every=4, trainer=TrainerConfig(ema_decay=0.5))
    with pytest.raises(Stopped, match="SIGTERM"):
        fit(
            tmp_path / "parts",
            validate_every=4,
            trainer=TrainerConfig(ema_decay=0.5),
            signals={("validation", 4): signal.SIGTERM},
        )
    resumed, resumed_figures, data = fit(
        tmp_path / "parts", validate_every=4, trainer=TrainerConfig(ema_decay=0.5), resume=True
    )
    assert data.read == list(range(4, STEPS))
    assert_same_weights(whole, resumed)
    assert resumed_figures == figures


def test_a_signal_in_the_last_validation_loses_no_row_of_the_curve(tmp_path: Path) -> None:
    fit(tmp_path / "whole")
    with pytest.raises(Stopped, match="SIGTERM"):
        fit(tmp_path / "parts", signals={("validation", STEPS): signal.SIGTERM})
    fit(tmp_path / "parts", resume=True)
    assert (tmp_path / "parts" / CURVES_FILE).read_text() == (tmp_path / "whole" / CURVES_FILE).read_text()


def test_a_state_counts_when_the_metrics_of_its_last_step_are_on_disk(tmp_path: Path) -> None:
    """As after a kill between the two: the state before counts, and the run repeats what its curve lacks."""
    steps: list[tuple[bool, int]] = []

    class Watched(Task):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            scratch = tmp_path / "out.training"
            rows = (scratch / "curves.jsonl").read_text().count("\n") if batch_idx else 0
            steps.append(((scratch / "last.ckpt").is_file(), rows))

    with TrainingRun(tmp_path / "out", resume=False) as run:
        data = StepData(Numbers(3), Numbers(1), num_workers=0)
        run.fit(Watched(), data, steps=3, save_every=2, device="cpu", log_every=1)
    assert steps == [(False, 0), (False, 1), (True, 2)]


def test_a_run_that_was_killed_after_it_had_saved_the_model_leaves_nothing_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "_clear", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.training"]
    with pytest.raises(FileExistsError, match="out already exists"):
        TrainingRun(tmp_path / "out", resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_job_leaves_workers_to_the_trainer(tmp_path: Path, signum: int) -> None:
    with pytest.raises(SystemExit):
        fit(tmp_path / "out", signals={("training", 1): signum}, num_workers=1)
    _, _, data = fit(tmp_path / "out", resume=True)
    assert data.read == list(range(2, STEPS))


def test_a_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    class Impatient(Task):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("the step went on")

    data = StepData(Numbers(STEPS), None, num_workers=0)
    with TrainingRun(tmp_path / "out", resume=False) as run, pytest.raises(SystemExit) as exit_:
        run.fit(Impatient(), data, steps=STEPS, save_every=3, device="cpu")
    assert exit_.value.code == 130


def test_a_state_is_written_beside_the_one_before_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(RuntimeError):
        fit(tmp_path / "out", fail_at=4)
    state, link = tmp_path / "out.training" / "last.ckpt", tmp_path / "link"
    os.link(state, link)
    at_step_3 = link.read_bytes()
    with pytest.raises(RuntimeError):
        fit(tmp_path / "out", resume=True, fail_at=7)
    assert state.read_bytes() != at_step_3
    assert link.read_bytes() == at_step_3  # the file before was replaced, not written over


def test_a_damaged_state_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fit(tmp_path / "out", fail_at=4)
    state = tmp_path / "out.training" / "last.ckpt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged and cannot be resumed .*; remove .* and start again"):
        fit(tmp_path / "out", resume=True)


def test_damaged_settings_of_an_interrupted_run_are_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fit(tmp_path / "out", fail_at=4)
    for _ in damaged(tmp_path / "out.training" / "run.json"):
        with pytest.raises(ValueError, match=r"run\.json .*; remove .* and run without --resume"):
            fit(tmp_path / "out", resume=True)


def test_a_run_is_resumed_with_the_settings_and_the_data_it_began_with(tmp_path: Path) -> None:
    facts = {"the number of episodes of source 1": 6}
    data = StepData(Numbers(STEPS), None, num_workers=0)
    with TrainingRun(tmp_path / "out", resume=False, settings=SETTINGS) as run:
        run.require_same_data(facts)
        with pytest.raises(RuntimeError):
            run.fit(Task(fail_at=4), data, steps=STEPS, save_every=3, device="cpu")

    others = {"seed": 1, "codebook_size": 16, "new": None}
    with pytest.raises(
        ValueError, match="--seed was 0 in the interrupted run and is 1 now; --codebook_size was 8"
    ) as it:
        TrainingRun(tmp_path / "out", resume=True, settings=others)
    assert "--new was not set in the interrupted run and is null now; resume with what it was begun with" in str(
        it.value
    )
    with TrainingRun(tmp_path / "out", resume=True, settings=SETTINGS) as run:
        with pytest.raises(
            ValueError, match="the number of episodes of source 1 was 6 in the interrupted run and is 7"
        ):
            run.require_same_data({"the number of episodes of source 1": 7})
        run.require_same_data(facts)


def test_a_run_cannot_end_before_the_step_it_has_reached(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fit(tmp_path / "out", fail_at=7)
    with (
        TrainingRun(tmp_path / "out", resume=True) as run,
        pytest.raises(ValueError, match="is at step 6 already and cannot end at step 5"),
    ):
        run.fit(Task(), StepData(Numbers(5), None, num_workers=0), steps=5, save_every=3, device="cpu")


def test_the_last_validation_is_of_the_weights_that_are_kept(tmp_path: Path) -> None:
    task, figures, _ = fit(tmp_path / "out", plain=True, validate_every=4)
    with torch.no_grad():
        errors = [
            (task.net(batch).squeeze(-1) - batch.sum(-1)).abs().mean() for batch in map(Numbers(2).__getitem__, (0, 1))
        ]
    assert figures["val/error"] == pytest.approx(float(sum(errors)) / 2)


def test_resuming_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing to resume: .* run without --resume"):
        TrainingRun(tmp_path / "out", resume=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resume", [False, True])
def test_a_complete_output_is_never_trained_over(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="already exists"):
        TrainingRun(tmp_path, resume=resume)


def test_accumulated_parts_of_a_batch_teach_what_the_whole_batch_teaches(tmp_path: Path) -> None:
    whole, _, _ = fit(tmp_path / "whole", plain=True)
    parts, _, data = fit(tmp_path / "parts", plain=True, trainer=TrainerConfig(accumulate=4))
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=0, atol=1e-5)
    assert data.parts == [(index, 4) for _ in range(STEPS) for index in range(4)]
    assert list(curve(tmp_path / "parts")) == list(range(STEPS))


ACCUMULATED_AND_AVERAGED = TrainerConfig(accumulate=2, ema_decay=0.9)


def test_fsdp_does_not_resume_what_another_strategy_saved(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fit(tmp_path / "out", fail_at=7)
    with pytest.raises(ValueError, match=r"trained with trainer\.strategy=auto, whose state fsdp cannot load"):
        fit(tmp_path / "out", resume=True, trainer=TrainerConfig(strategy="fsdp"))
    fit(tmp_path / "out", resume=True)  # nothing is lost


def test_accumulation_and_averaging_resume_to_the_very_same_weights(tmp_path: Path) -> None:
    whole, figures, _ = fit(tmp_path / "whole", trainer=ACCUMULATED_AND_AVERAGED)
    with pytest.raises(RuntimeError):
        fit(tmp_path / "parts", fail_at=7, trainer=ACCUMULATED_AND_AVERAGED)
    resumed, resumed_figures, data = fit(tmp_path / "parts", resume=True, trainer=ACCUMULATED_AND_AVERAGED)
    assert data.read == [6, 6, 7, 7, 8, 8, 9, 9]
    assert_same_weights(whole, resumed)
    assert resumed_figures == figures
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


def test_a_run_resumes_only_with_the_accumulation_it_began_with(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fit(tmp_path / "out", fail_at=7)
    with pytest.raises(ValueError, match="accumulates over 1 batches, not 2; resume it with accumulate=1"):
        fit(tmp_path / "out", resume=True, trainer=TrainerConfig(accumulate=2))


def test_the_finished_module_and_its_validation_are_of_the_averaged_weights(tmp_path: Path) -> None:
    last, figures, _ = fit(tmp_path / "last", plain=True)
    averaged, averaged_figures, _ = fit(tmp_path / "averaged", plain=True, trainer=TrainerConfig(ema_decay=0.9))
    assert all(not torch.equal(value, last.state_dict()[name]) for name, value in averaged.state_dict().items())
    assert averaged_figures["train/loss"] == figures["train/loss"]  # the steps themselves are the same

    errors = [
        (averaged.net(batch).squeeze(-1) - batch.sum(-1)).abs().mean() for batch in map(Numbers(2).__getitem__, (0, 1))
    ]
    assert averaged_figures["val/error"] == pytest.approx(float(sum(errors)) / 2)


class Revived(nn.Module):
    """A weight that is replaced in the third step, and a buffer that nothing should average."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        if self.seen == 3:
            self.weight.data[0] = 100.0
        return x + self.weight.sum()

    def replaced_values(self) -> dict[str, Tensor]:
        return {"weight": torch.tensor([self.seen == 3, False]), "seen": torch.tensor(True)}


def test_an_average_begins_anew_where_a_module_replaced_a_value(tmp_path: Path) -> None:
    task = Task()
    task.net = nn.Sequential(nn.Linear(4, 1), Revived())
    run = TrainingRun(tmp_path / "out", resume=False)
    config = TrainerConfig(ema_decay=0.99)
    run.fit(task, StepData(Numbers(4), None, num_workers=0), steps=4, save_every=4, device="cpu", trainer=config)
    revived = task.net[1]
    assert isinstance(revived, Revived)
    assert revived.seen == 4
    assert float(revived.weight[0]) == pytest.approx(100, abs=0.1)
    assert abs(float(revived.weight[1])) < 0.1


def test_an_average_survives_a_resumption_with_nothing_left_to_train(tmp_path: Path) -> None:
    config = TrainerConfig(ema_decay=0.9)
    ends = []
    for resume in (False, True):
        torch.manual_seed(0)
        task, data = Task(), StepData(Numbers(5), None, num_workers=0)
        with TrainingRun(tmp_path / "out", resume=resume) as run:
            run.fit(task, data, steps=5, save_every=3, device="cpu", trainer=config)
        ends.append(task)
    assert_same_weights(*ends)


@pytest.mark.parametrize("metric", ["train/loss", "val/error"])
def test_a_failed_gate_stops_with_one_sentence_and_the_run_can_go_on_without_it(tmp_path: Path, metric: str) -> None:
    whole, _, _ = fit(tmp_path / "whole")
    gate = QualityGate(metric=metric, at_step=4 if metric == "train/loss" else STEPS, at_most=0.0)
    message = rf"{metric} is .* at step {gate.at_step} and should be at most 0; stopped, .*--resume=true"
    with pytest.raises(ValueError, match=message):
        fit(tmp_path / "gated", trainer=TrainerConfig(gates=[gate]))
    assert not (tmp_path / "gated").exists()

    resumed, _, data = fit(tmp_path / "gated", resume=True)
    assert data.read == list(range(gate.at_step, STEPS))
    assert_same_weights(whole, resumed)


def test_a_gate_that_failed_at_the_last_step_fails_again_when_resumed(tmp_path: Path) -> None:
    config = TrainerConfig(gates=[QualityGate(metric="val/error", at_step=STEPS, at_most=0.0)])
    for resume in (False, True):
        with pytest.raises(ValueError, match=f"val/error is .* at step {STEPS} and should be at most 0"):
            fit(tmp_path / "gated", trainer=config, resume=resume)


def test_a_passed_gate_changes_nothing(tmp_path: Path) -> None:
    whole, _, _ = fit(tmp_path / "whole")
    gated, _, _ = fit(tmp_path / "gated", trainer=TrainerConfig(gates=[GATE]))
    assert_same_weights(whole, gated)


GATE = QualityGate(metric="val/error", at_step=5, at_least=0.0)


def test_a_gate_on_a_figure_that_nothing_logs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="val/typo, which is never logged; this run logs train/loss, val/error"):
        fit(tmp_path / "out", trainer=TrainerConfig(gates=[replace(GATE, metric="val/typo")]))


def test_a_gate_after_the_last_step_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the gate on val/error is at step 11, after the last, 10"):
        fit(tmp_path / "out", trainer=TrainerConfig(gates=[replace(GATE, at_step=11)]))


def test_half_precision_trains(tmp_path: Path) -> None:
    _, figures, _ = fit(tmp_path / "out", trainer=TrainerConfig(precision="bf16-mixed"))
    assert 0 < figures["train/loss"] < 10


def test_weights_in_half_precision_are_no_choice(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        draccus.parse(TrainerConfig, args=["--precision=bf16-true"])
    assert "invalid choice: 'bf16-true' (choose from '32-true', 'bf16-mixed', '16-mixed')" in capsys.readouterr().err


def test_float16_on_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="precision 16-mixed needs a GPU; use bf16-mixed"):
        fit(tmp_path / "out", trainer=TrainerConfig(precision="16-mixed"))


@pytest.mark.slow
def test_a_compiled_step_teaches_the_same(tmp_path: Path) -> None:
    whole, _, _ = fit(tmp_path / "whole", plain=True)
    compiled, _, _ = fit(tmp_path / "compiled", plain=True, trainer=TrainerConfig(compile=True))
    torch.testing.assert_close(compiled.state_dict(), whole.state_dict(), rtol=0, atol=1e-5)


def test_wandb_keeps_what_it_wrote_beside_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    fit(tmp_path / "out", trainer=TrainerConfig(loggers=["wandb"]))
    assert list((tmp_path / "out" / "wandb").glob("offline-run-*"))
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_run_without_validation_says_nothing_of_it(tmp_path: Path) -> None:
    class Trained(Task):
        validation_step = pl.LightningModule.validation_step

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*val")
        TrainingRun(tmp_path / "out", resume=False).fit(
            Trained(), StepData(Numbers(1), None, num_workers=0), steps=1, save_every=1, device="cpu", log_every=1
        )


def test_the_settings_read_from_a_command_line() -> None:
    flags = ["--devices=2", "--strategy=fsdp", "--loggers=[wandb]", "--gates=[{metric: a/b, at_step: 5, at_most: 2}]"]
    found = draccus.parse(TrainerConfig, args=flags)
    gate = QualityGate(metric="a/b", at_step=5, at_most=2.0)
    assert found == TrainerConfig(devices=2, strategy="fsdp", loggers=["wandb"], gates=[gate])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"devices": 0}, "devices must be 1 or more"),
        ({"ema_decay": 1.0}, "ema_decay must be"),
        ({"gradient_clip": -1.0}, "gradient_clip must be"),
        ({"strategy": "fsdp", "ema_decay": 0.9}, "strategy fsdp goes without ema_decay"),
    ],
)
def test_settings_that_cannot_be_say_so(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainerConfig(**settings)


def test_a_batch_must_divide_between_all_processes_and_passes() -> None:
    config = TrainerConfig(devices=2, num_nodes=2, accumulate=2)
    config.require_divisible(64)
    with pytest.raises(ValueError, match="batch_size=60 does not divide into 8 equal parts"):
        config.require_divisible(60)
