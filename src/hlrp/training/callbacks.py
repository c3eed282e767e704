"""What a training run does beside its steps, each part with what of it must be saved for an exact resumption."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

import lightning.pytorch as pl
import torch
from jaxtyping import Bool
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from hlrp.runtime.signals import Stopped, StopRequest
from hlrp.storage.files import new_file
from hlrp.training.config import QualityGate

logger = logging.getLogger(__name__)


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
    """Write the state to resume from, always between two optimizer steps, and stop there where a signal asked for it.

    All processes stop after the same step, whichever of them the signal reached. A validation is not worth waiting for
    when a cluster ends a job: the state is also saved before each one, and a signal ends it after its next batch.

    Args:
        path: File of the state.
        every: Steps between two writings.
        also_at: Further steps, such as the last one.
        also_every: Further steps at every multiple of this number: those after which there is a validation.
        accumulate: Shares of a batch that one process adds up for a step.
        steps: Steps of the whole run.
        request: What notices signals.
    """

    def __init__(
        self,
        path: Path,
        *,
        every: int,
        also_at: Collection[int],
        also_every: int | None,
        accumulate: int,
        steps: int,
        request: StopRequest,
    ) -> None:
        self._path, self._also_at, self._accumulate = path, also_at, accumulate
        self._every = (every, also_every or every)
        self._steps = steps
        self._request = request
        self._ending = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._request.listen_again()  # Lightning puts handlers of its own in place, which end a run without a state
        self._stop_if_asked(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % self._accumulate:
            return
        step, signum = trainer.global_step, self._signal(trainer)
        if signum or step in self._also_at or any(step % every == 0 for every in self._every):
            trainer.save_checkpoint(self._path, weights_only=False)
        self._ending = signum

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End here where the step before was to be the last one: its figures are logged by now."""
        if self._ending:
            _end(trainer, self._ending)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._request.listen_again()
        if self._ending:
            _end(trainer, self._ending)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        if signum := self._signal(trainer):
            _end(trainer, signum)

    def _signal(self, trainer: pl.Trainer) -> int:
        """The signal that came to any process; 0 if none did."""
        own = self._request.signum or 0
        if trainer.world_size == 1:
            return own
        return int(trainer.strategy.reduce(torch.tensor(own, device=trainer.strategy.root_device), reduce_op="max"))

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse a state beyond the end of the run.

        Raises:
            ValueError: If it is of a later step than the last.
        """
        if checkpoint["global_step"] > self._steps:
            raise ValueError(
                f"the run to resume is at step {checkpoint['global_step']} already and cannot end at step "
                f"{self._steps}; resume it with as many steps or more"
            )

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


@runtime_checkable
class ReplacesValues(Protocol):
    """A module that in training replaces some of its values, such as dead codes, instead of moving them."""

    def replaced_values(self) -> dict[str, Bool[Tensor, "..."]]:
        """Masks of the values replaced since the last call, by the name of the module's parameter or buffer.

        A mask is broadcastable to its tensor. An average over the old and the new value is neither of them.
        """
        ...


def _end(trainer: pl.Trainer, signum: int) -> NoReturn:
    """End this process; the exit status of the first one tells of the signal, and the others do not fail the run."""
    raise Stopped(signum) if trainer.is_global_zero else SystemExit(0)


class ValidateAfterLastStep(pl.Callback):
    """Validate the finished weights, also where the last step is no multiple of the steps between two validations.

    Lightning validates when a run is asked to stop; after the last step that changes nothing else.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._steps:
            trainer.should_stop = True


class StateFile(TorchCheckpointIO):
    """Write a state beside the one before, which it replaces once it is on the disk.

    Lightning writes it to TMPDIR and moves it: on another file system that is a copy over the state before, and a run
    that is killed meanwhile is left with half a state and no earlier one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Replace the file `path`; it has no `storage_options`."""
        assert storage_options is None
        with new_file(path) as scratch:
            torch.save(checkpoint, scratch)


class AveragedWeights(pl.Callback):
    """Exponential moving average of the trained weights and of floating-point buffers, in float32.

    The decay warms up as min(decay, (1 + n) / (10 + n)) after n updates, the schedule of TensorFlow's
    `ExponentialMovingAverage`, so that the random first weights fade within a few steps. Validation sees the average.
    Values that a module replaced (see `ReplacesValues`) are averaged from then on only.
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
        replaced = replaced_values(pl_module)
        for name, value in _averaged(pl_module):
            average = self._average[name].lerp_(value.float(), 1 - decay)
            if name in replaced:
                average.copy_(torch.where(replaced[name], value.float(), average))

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


def replaced_values(module: torch.nn.Module) -> dict[str, Tensor]:
    """Masks of the values that any part of `module` replaced since the last call, by the name of their tensor."""
    parts = ((prefix, part) for prefix, part in module.named_modules() if isinstance(part, ReplacesValues))
    return {
        f"{prefix}.{name}" if prefix else name: mask
        for prefix, part in parts
        for name, mask in part.replaced_values().items()
    }


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

    def judge_resumed(self, trainer: pl.Trainer) -> None:
        """Judge a run that had no step left to train, by what its last validation logged; figures of training steps
        that were logged before the resumption cannot be judged any more.

        Raises:
            ValueError: If a gate fails.
        """
        self._judge(trainer)
        for gate in self._due(trainer):
            logger.warning(f"the gate on {gate.metric} was not judged: the run was resumed after its last step")

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
