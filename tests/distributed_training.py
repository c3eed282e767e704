"""Trains a small module several times, on one process or on as many as asked: `python distributed_training.py FOLDER`.

Lightning starts this program again for each further process, as it does with the commands of the stages.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import lightning.pytorch as pl
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hlrp.training.callbacks import QualityGate
from hlrp.training.optimization import OptimizerConfig, lightning_optimizers
from hlrp.training.run import TrainerConfig, TrainingRun
from hlrp.training.step_batches import part_rows
from hlrp.training.step_data import StepData

STEPS = 4
BATCH_SIZE = 8


class Numbers:
    """Batch `i` depends on `i` alone."""

    def __len__(self) -> int:
        return STEPS

    def part(self, step: int, index: int, parts: int) -> Tensor:
        rows = part_rows(BATCH_SIZE, index, parts)
        return torch.randn(BATCH_SIZE, 4, generator=torch.Generator().manual_seed(step))[rows]


class Task(pl.LightningModule):
    """Fits the sum of four numbers; fails on request."""

    def __init__(self, fail_at: int | None, stop_at: int | None = None) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(2))
        self.last = nn.Linear(8, 1)
        self.fail_at, self.stop_at = fail_at, stop_at

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if self.global_step == self.fail_at:
            raise InterruptedError("on request")
        if self.global_step == self.stop_at and self.global_rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        hidden = self.first(batch)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        loss = (self.last(hidden).squeeze(-1) - batch.sum(-1)).square().mean()
        self.log("train/loss", loss, sync_dist=True)
        return loss

    def configure_optimizers(self) -> dict[str, object]:
        return lightning_optimizers(self, OptimizerConfig(warmup_steps=2), total_steps=STEPS)


def train(
    output: Path,
    config: TrainerConfig,
    *,
    resume: bool = False,
    fail_at: int | None = None,
    stop_at: int | None = None,
) -> None:
    """Train, and write what every process ends with: `<output>/weights.safetensors`, and `<output>-other…` beside.

    On request every process fails, or the second one alone gets a signal.
    """
    torch.manual_seed(0)
    task = Task(fail_at, stop_at)
    data = StepData(Numbers(), None, num_workers=0)
    with TrainingRun(output, resume=resume) as run:
        run.fit(task, data, steps=STEPS, save_every=2, device="cpu", trainer=config, log_every=1)
        if not run.is_main:
            save_file(task.state_dict(), f"{output}-other.safetensors")
            return
        run.finish(lambda texts: save(output, task, texts))


def save(output: Path, task: Task, texts: Mapping[str, str]) -> None:
    output.mkdir()
    save_file(task.state_dict(), output / "weights.safetensors")
    for name, text in texts.items():
        (output / name).write_text(text)


def next_port() -> None:
    """Let the next run of this program meet at a port of its own: that of the last one may not be free yet."""
    os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)


def two_processes(folder: Path) -> None:
    """Every way of sharing the work between two processes, each once whole and fsdp once resumed."""
    train(folder / "ddp", TrainerConfig(devices=2, strategy="ddp"))
    next_port()
    train(folder / "accumulated", TrainerConfig(devices=2, accumulate=2, ema_decay=0.5))
    next_port()
    train(folder / "fsdp", TrainerConfig(devices=2, strategy="fsdp"))
    for name in ("ddp", "fsdp"):
        config = TrainerConfig(devices=2, strategy=name)
        next_port()
        with suppress(InterruptedError):
            train(folder / f"{name}-resumed", config, fail_at=3)
        torch.distributed.destroy_process_group()
        next_port()
        train(folder / f"{name}-resumed", config, resume=True)
    next_port()
    stopped = ""
    try:
        train(folder / "signal-resumed", TrainerConfig(devices=2), stop_at=0)
    except SystemExit as stop:
        stopped = f"{stop.code}"
    (folder / f"stopped-{os.environ['LOCAL_RANK']}").write_text(stopped)
    torch.distributed.destroy_process_group()
    next_port()
    train(folder / "signal-resumed", TrainerConfig(devices=2), resume=True)
    next_port()
    gate = QualityGate(metric="train/loss", at_step=2, at_most=0.0)
    train(folder / "gate", TrainerConfig(devices=2, gates=[gate]))


if __name__ == "__main__":
    two_processes(Path(sys.argv[1]))
