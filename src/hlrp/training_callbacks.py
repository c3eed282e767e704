"""What a training run does beside its steps, each part with what of it must be saved for an exact resumption."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from hlrp.training_config import QualityGate


class DrawsByStep(pl.Callback):
    """Random numbers of a step (dropout, restarted codes) depend on its number: a resumed run repeats them.

    Before each share of a batch, torch is seeded with a hash of (seed, step, part), where the seed is torch's own at
    the start and part = micro * world_size + rank counts the shares of the step: no two of them draw alike. What must
    be the same however many processes there are therefore comes with the batch, not from these numbers.
    """

    def __init__(self, accumulate: int) -> None:
        self._seed = torch.initial_seed()
        self._accumulate = accumulate

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        part = batch_idx % self._accumulate * trainer.world_size + trainer.global_rank
        torch.manual_seed(hash((self._seed, trainer.global_step, part)) % 2**63)


class SaveState(pl.Callback):
    """Write the state to resume from, always between two optimizer steps.

    Args:
        path: File of the state.
        every: Steps between two writings.
        also_at: Further steps, such as the last one.
        accumulate: Shares of a batch that one process adds up for a step.
    """

    def __init__(self, path: Path, *, every: int, also_at: Collection[int], accumulate: int) -> None:
        self._path, self._every, self._also_at, self._accumulate = path, every, also_at, accumulate

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        stepped = (batch_idx + 1) % self._accumulate == 0
        if stepped and (step % self._every == 0 or step in self._also_at):
            trainer.save_checkpoint(self._path, weights_only=False)

    def state_dict(self) -> dict[str, Any]:
        return {"accumulate": self._accumulate}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to go on with another accumulation: Lightning's batch counter would be out of step with it.

        Raises:
            ValueError: If the state was written with another `accumulate`.
        """
        if state_dict["accumulate"] != self._accumulate:
            raise ValueError(
                f"the run to resume accumulates over {state_dict['accumulate']} batches, not {self._accumulate}; "
                f"resume it with accumulate={state_dict['accumulate']}"
            )


class AveragedWeights(pl.Callback):
    """Exponential moving average of the trained weights and of floating-point buffers, in float32.

    The decay warms up as min(decay, (1 + n) / (10 + n)) after n updates, the schedule of TensorFlow's
    `ExponentialMovingAverage`, so that the random first weights fade within a few steps. Validation sees the average.
    Lightning's own callback averages integer buffers too, puts its weights back before the module has closed its
    validation epoch, and leaves a run that resumes at its end without the average.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._updates = 0
        self._average: dict[str, Tensor] = {}
        self._aside: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start from the module's weights, where no average was loaded."""
        self._step = trainer.global_step
        average = self._average or {name: value.detach().float().clone() for name, value in _averaged(pl_module)}
        self._average = {name: value.to(pl_module.device) for name, value in average.items()}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:  # still accumulating
            return
        self._step = trainer.global_step
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        self._updates += 1
        for name, value in _averaged(pl_module):
            self._average[name].lerp_(value.float(), 1 - decay)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._aside = {name: value.detach().clone() for name, value in _averaged(pl_module)}
            _copy(self._average, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _copy(self._aside, pl_module)
        self._aside = {}

    def apply_to(self, module: pl.LightningModule) -> None:
        """Give `module` the averaged weights for good."""
        _copy(self._average, module)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self._updates, "average": self._average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._updates, self._average = state_dict["updates"], state_dict["average"]


def _averaged(module: torch.nn.Module) -> list[tuple[str, Tensor]]:
    trained = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
    return trained + [(name, value) for name, value in module.named_buffers() if value.is_floating_point()]


@torch.no_grad()
def _copy(values: dict[str, Tensor], module: torch.nn.Module) -> None:
    for name, target in _averaged(module):
        if name in values:
            target.copy_(values[name])


class QualityGates(pl.Callback):
    """Judge each gate once, when its step is done, validation included; a figure not logged by then is awaited."""

    def __init__(self, gates: Sequence[QualityGate]) -> None:
        self._gates = list(gates)
        self._passed: list[str] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._judge(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judge what is left.

        Raises:
            ValueError: If a gate fails, or names a figure that was never logged.
        """
        self._judge(trainer)
        awaited = [gate.metric for gate in self._due(trainer)]
        if awaited:
            logged = ", ".join(sorted(trainer.callback_metrics))
            _stop(trainer, f"no gate can judge {', '.join(awaited)}, which is never logged; this run logs {logged}")

    def _due(self, trainer: pl.Trainer) -> list[QualityGate]:
        return [gate for gate in self._gates if gate.at_step <= trainer.global_step and repr(gate) not in self._passed]

    def _judge(self, trainer: pl.Trainer) -> None:
        due = [gate for gate in self._due(trainer) if gate.metric in trainer.callback_metrics]
        if not due:
            return
        complaints = [gate.complaint(float(trainer.callback_metrics[gate.metric])) for gate in due]
        complaints = trainer.strategy.broadcast(complaints)  # figures may differ a little; the first process decides
        if any(complaints):
            _stop(trainer, "; ".join(filter(None, complaints)))
        self._passed += [repr(gate) for gate in due]

    def state_dict(self) -> dict[str, Any]:
        return {"passed": self._passed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._passed = list(state_dict["passed"])


def _stop(trainer: pl.Trainer, why: str) -> NoReturn:
    """End the run with one sentence, said by the first process."""
    if not trainer.is_global_zero:
        raise SystemExit(0)
    raise ValueError(f"{why}; stopped, and the state is kept: change the gate and go on with --resume=true")
