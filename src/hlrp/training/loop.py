"""Lightning loop of a training run: the trainer with its callbacks, and what follows the last step."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.utilities.compile import to_uncompiled

from hlrp.runtime.signals import StopRequest
from hlrp.training.callbacks import (
    AveragedWeights,
    DrawsByStep,
    PutStateInPlace,
    QualityGates,
    SaveState,
    StateFile,
    ValidateAfterLastStep,
)
from hlrp.training.config import TrainerConfig
from hlrp.training.curves import ContinueCurves
from hlrp.training.sharding import gather_weights, sharding_strategy
from hlrp.training.step_data import StepData

_ACCELERATORS = {"cuda": "gpu", "cpu": "cpu", "mps": "mps"}
"""Lightning's names of accelerators by torch's types of devices."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Optimizer steps of a run, and after which of them the state is saved, validated and logged."""

    steps: int
    """Number of optimizer steps of the whole run, including those before an interruption."""
    save_every: int
    """Steps between two saved states."""
    validate_every: int | None
    """Steps between two validations; None for no validation."""
    log_every: int
    """Steps between two logged values of training metrics."""


class TrainingLoop:
    """Trains one module on one schedule; a saved state continues the loop to the same weights.

    Args:
        module: Lightning module to train, in place.
        config: Settings of the trainer.
        schedule: Number of steps, and when to save, validate and log.
        device: Device of the training, such as "cpu" or "cuda".
        state: File of the state that is saved and resumed.
        loggers: Loggers of the metrics.
    """

    def __init__(
        self,
        module: pl.LightningModule,
        config: TrainerConfig,
        schedule: Schedule,
        *,
        device: str,
        state: Path,
        loggers: Sequence[Logger],
    ) -> None:
        self._config, self._schedule, self._state = config, schedule, state
        self._module = module
        # fsdp shards a module in place, but the caller evaluates and saves the module afterwards: train a copy.
        self._trained = copy.deepcopy(module) if config.strategy == "fsdp" else module
        self._request = StopRequest()
        self._average = AveragedWeights(config.ema_decay) if config.ema_decay else None
        self._gates = QualityGates(config.gates)
        self._trainer = self._build_trainer(torch.device(device), loggers)

    @property
    def signum(self) -> int | None:
        """Number of the signal that was received during the training; None if none was."""
        return self._request.signum

    def run(self, data: StepData, *, resume: bool) -> dict[str, float]:
        """Train until the last step, and return the last logged value of every metric by name.

        Args:
            data: Training and validation batches.
            resume: Continue from the state file; else start at step 0.

        Raises:
            ValueError: If a quality gate fails.
            Stopped: If a signal ended the training; the state is saved.
        """
        with self._request.listening():
            self._trainer.fit(
                torch.compile(self._trained) if self._config.compile else self._trained,  # pyright: ignore[reportArgumentType]
                data.train_loader(self._trainer),
                data.val_loader(),
                ckpt_path=self._state if resume else None,
                weights_only=True,
            )
            # `fit` also returns if something has set `should_stop`: an unfinished run must not count as finished.
            if self._trainer.global_step < self._schedule.steps:
                raise KeyboardInterrupt(f"stopped at step {self._trainer.global_step} of {self._schedule.steps}")
            self._finish_weights()
            if not self._trainer.callback_metrics:  # the run was resumed after its last step: nothing was logged
                self._measure_resumed(data)
            if self._config.strategy == "fsdp":
                gather_weights(self._trained, into=self._module)
        return {name: float(value) for name, value in self._trainer.callback_metrics.items()}

    def _finish_weights(self) -> None:
        """Undo the compilation, and put the averaged weights in place of the last ones."""
        if self._config.compile:
            to_uncompiled(self._trained)
        if self._average:
            self._average.apply_to(self._trained)

    def _measure_resumed(self, data: StepData) -> None:
        """Validate and check the quality gates of a run that was resumed after its last step."""
        if self._schedule.validate_every:
            self._trainer.validate(self._trained, data.val_loader(), verbose=False)
        self._gates.judge_resumed(self._trainer)

    def _build_trainer(self, device: torch.device, loggers: Sequence[Logger]) -> pl.Trainer:
        config, schedule = self._config, self._schedule
        # Lightning counts batch parts, not optimizer steps.
        validate_every = schedule.validate_every and schedule.validate_every * config.accumulate
        return pl.Trainer(
            max_steps=schedule.steps,
            max_epochs=-1,  # only `max_steps` ends the training
            accelerator=_ACCELERATORS[device.type],
            devices=config.devices if device.type != "cuda" or device.index is None else [device.index],
            num_nodes=config.num_nodes,
            strategy=_strategy(config, self._trained),
            use_distributed_sampler=False,  # `StepData` divides the batch; Lightning must not divide it again
            precision=config.precision,
            plugins=StateFile(),
            default_root_dir=self._state.parent,  # Lightning looks here for states of preempted Slurm jobs
            accumulate_grad_batches=config.accumulate,
            logger=loggers,
            callbacks=self._callbacks(),
            val_check_interval=validate_every,
            limit_val_batches=None if schedule.validate_every else 0,
            check_val_every_n_epoch=None,  # a run is one endless epoch, so validation is timed by steps alone
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_checkpointing=False,  # `SaveState` saves instead
            gradient_clip_val=config.gradient_clip or None,
            log_every_n_steps=schedule.log_every,
        )

    def _callbacks(self) -> list[pl.Callback]:
        steps = self._schedule.steps
        save = SaveState(
            self._state,
            every=self._schedule.save_every,
            also_at={steps, *(gate.at_step for gate in self._config.gates)},
            also_every=self._schedule.validate_every,
            accumulate=self._config.accumulate,
            steps=steps,
            request=self._request,
        )
        return [
            PutStateInPlace(save),  # first, so that a state counts also if another callback ends the run
            DrawsByStep(self._config.accumulate),
            *([self._average] if self._average else []),
            self._gates,
            *([ValidateAfterLastStep(steps)] if self._schedule.validate_every else []),
            ContinueCurves(),
            save,  # last, so that it saves the state after all other callbacks have changed it
            TQDMProgressBar(refresh_rate=10),
        ]


def _strategy(config: TrainerConfig, module: pl.LightningModule) -> Strategy | Literal["auto"]:
    if config.strategy == "fsdp":
        return sharding_strategy(module, world_size=config.world_size)
    return DDPStrategy() if config.strategy == "ddp" else "auto"
