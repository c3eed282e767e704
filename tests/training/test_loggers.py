"""What a training run tells its log of events, and the services that its options name."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import Dataset

from hlrp.runtime.event_log import event_log
from hlrp.runtime.extras import MissingPackage
from hlrp.runtime.signals import Stopped
from hlrp.training.config import LoggerName, TrainerConfig
from hlrp.training.run import TrainingRun
from hlrp.training.step_data import StepData

STEPS = 6


@dataclass
class Options:
    steps: int = STEPS


class Numbers(Dataset[Tensor]):
    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, step: int) -> Tensor:
        return torch.full((2, 1), float(step))

    def part(self, step: int, index: int, parts: int) -> Tensor:
        return self[step][index::parts]


class Task(pl.LightningModule):
    """Logs the number of the step; is asked to stop in step `stop_at`."""

    def __init__(self, stop_at: int | None) -> None:
        super().__init__()
        self.net, self.stop_at = nn.Linear(1, 1), stop_at

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if self.global_step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        self.log("train/step", float(self.global_step))
        return self.net(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(output: Path, *loggers: LoggerName, resume: bool = False, stop_at: int | None = None) -> None:
    with TrainingRun(output, resume=resume, settings={"seed": 3, "sizes": [1, 2]}) as run:
        run.fit(
            Task(stop_at),
            StepData(Numbers(), None, num_workers=0),
            steps=STEPS,
            save_every=2,
            device="cpu",
            log_every=2,
            trainer=TrainerConfig(loggers=list(loggers)),
        )
        run.finish(lambda texts: save(output, texts))


def save(output: Path, texts: Mapping[str, str]) -> None:
    output.mkdir()
    for name, text in texts.items():
        (output / name).write_text(text)


def test_progress_and_saved_states_are_events(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with event_log(log, command="train", options=Options()):
        train(tmp_path / "out")
    events: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [event for event in events if event["event"] == "progress"]
    assert [(event["done"], event["total"], event["metrics"]["train/step"]) for event in steps] == [
        (2, STEPS, 1.0),
        (4, STEPS, 3.0),
        (6, STEPS, 5.0),
    ]
    assert steps[0]["per_s"] is None
    assert steps[1]["left_s"] > 0 == steps[2]["left_s"]
    assert [event["step"] for event in events if event["event"] == "checkpoint"] == [2, 4, 6]
    assert [event["event"] for event in events][-2:] == ["saved", "end"]


def test_a_stopped_run_says_so_and_the_resumed_run_continues_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with pytest.raises(Stopped), event_log(log, command="train", options=Options()):
        train(tmp_path / "out", stop_at=3)
    with event_log(log, command="train", options=Options()):
        train(tmp_path / "out", resume=True)
    kinds = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert [kind for kind in kinds if kind in ("start", "stopped", "end")] == ["start", "stopped", "start", "end"]


def test_tensorboard_holds_curves_and_options_beside_the_result(tmp_path: Path) -> None:
    train(tmp_path / "out", "tensorboard")
    (folder,) = (tmp_path / "out" / "tensorboard").iterdir()
    written = EventAccumulator(str(folder)).Reload()
    assert [scalar.value for scalar in written.Scalars("train/step")] == [1, 3, 5]
    assert "seed: 3" in (folder / "hparams.yaml").read_text()


def test_trackio_holds_curves_and_options_and_a_resumed_run_continues_there(tmp_path: Path) -> None:
    api = pytest.importorskip("trackio").Api()
    from trackio.sqlite_storage import SQLiteStorage

    with pytest.raises(Stopped):
        train(tmp_path / "out", "trackio", stop_at=3)
    train(tmp_path / "out", "trackio", resume=True)
    (run,) = (run for run in api.runs("hlrp") if run.name == "out")
    assert run.config.items() >= {"seed": 3, "sizes": [1, 2]}.items()
    assert [row["train/step"] for row in SQLiteStorage.get_logs("hlrp", "out", run_id=run.id)] == [1, 3, 5]
    train(tmp_path / "again" / "out", "trackio")  # a new run of the same name is another run
    assert len([run for run in api.runs("hlrp") if run.name == "out"]) == 2


@pytest.mark.parametrize(("name", "extra"), [("trackio", "trackio"), ("tensorboard", "loggers")])
def test_a_logger_that_is_not_installed_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, name: LoggerName, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        MissingPackage, match=rf'{name} needs {name}; .* `pip install "lerobot_policy_felix_bundle\[{extra}\]"`'
    ):
        TrainerConfig(loggers=[name])
