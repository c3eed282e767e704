from __future__ import annotations

import csv
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import draccus
import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from hlrp.optimization import OptimizerConfig, lightning_optimizers
from hlrp.training import CURVES_FILE, HalfWeights, StepData, TrainerConfig, TrainingRun
from hlrp.training_callbacks import QualityGate
from hlrp.training_config import PrecisionName

STEPS = 10


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
    trainer: TrainerConfig | None = None,
    plain: bool = False,
) -> tuple[Task, dict[str, float], Numbers]:
    torch.manual_seed(0)
    task, data = Task(fail_at, error), Numbers(STEPS)
    if plain:  # neither dropout nor batch statistics, which see only a part of the batch
        task.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    run = TrainingRun(output, resume=resume)
    figures = run.fit(
        task,
        StepData(data, Numbers(2), num_workers=num_workers),
        steps=STEPS,
        save_every=3,
        validate_every=STEPS,
        device="cpu",
        log_every=1,
        trainer=trainer,
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


def test_accumulated_parts_of_a_batch_teach_what_the_whole_batch_teaches(tmp_path: Path) -> None:
    whole, _, _ = fit(tmp_path / "whole", plain=True)
    parts, _, data = fit(tmp_path / "parts", plain=True, trainer=TrainerConfig(accumulate=4))
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=0, atol=1e-5)
    assert data.parts == [(index, 4) for _ in range(STEPS) for index in range(4)]
    assert list(curve(tmp_path / "parts")) == list(range(STEPS))


ACCUMULATED_AND_AVERAGED = TrainerConfig(accumulate=2, ema_decay=0.9)


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


def test_an_average_survives_a_resumption_with_nothing_left_to_train(tmp_path: Path) -> None:
    config = TrainerConfig(ema_decay=0.9)
    ends = []
    for resume in (False, True):
        torch.manual_seed(0)
        task = Task()
        run = TrainingRun(tmp_path / "out", resume=resume)
        run.fit(task, StepData(Numbers(5), None, num_workers=0), steps=5, save_every=3, device="cpu", trainer=config)
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


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision_trains(tmp_path: Path, precision: PrecisionName) -> None:
    _, figures, _ = fit(tmp_path / "out", trainer=TrainerConfig(precision=precision))
    assert 0 < figures["train/loss"] < 10


@dataclass(frozen=True)
class Pair:
    """A batch as our stages have them."""

    numbers: Tensor
    names: list[str]


def test_bfloat16_weights_come_with_bfloat16_batches() -> None:
    batch = HalfWeights("bf16-true").convert_input(Pair(torch.zeros(2), ["a", "b"]))
    assert batch.numbers.dtype == torch.bfloat16
    assert batch.names == ["a", "b"]


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


@pytest.mark.skipif(find_spec("tensorboard") is not None, reason="tensorboard is installed")
def test_a_logger_that_is_not_installed_says_how_to_install_it() -> None:
    with pytest.raises(ValueError, match="install it with `pip install tensorboard`"):
        TrainerConfig(loggers=["tensorboard"])


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
