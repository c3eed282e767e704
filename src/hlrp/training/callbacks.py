"""Lightning callbacks of a training run: random state, saved states, averaged weights and quality gates.

Each callback saves and restores its own state, so that a resumed run continues exactly.
"""

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

from hlrp.runtime.event_log import log_event
from hlrp.runtime.signals import Stopped, StopRequest
from hlrp.storage.files import new_file, put_in_place
from hlrp.training.config import QualityGate

logger = logging.getLogger(__name__)


class DrawsByStep(pl.Callback):
    """Seed torch before each part of a batch, so that a resumed run draws the same numbers (dropout, restarted codes).

    The seed is a hash of (torch's initial seed, step, part), where part = micro * world_size + rank counts the parts of
    the step, so that each part gets other numbers. They depend on the number of processes; random numbers that must not
    depend on it are part of the batch (see `hlrp.training.row_draws`).
    """

    def __init__(self, accumulate: int) -> None:
        self._seed = torch.initial_seed()
        self._accumulate = accumulate

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        part = batch_idx % self._accumulate * trainer.world_size + trainer.global_rank
        torch.manual_seed(hash((self._seed, trainer.global_step, part)) % 2**63)


def pending_files(path: Path) -> tuple[Path, Path]:
    """Files of a state that does not count yet: complete, and while it is written; see `SaveState`."""
    pending = path.with_name(f"{path.name}.next")
    return pending, pending.with_name(f".{pending.name}.partial")


class SaveState(pl.Callback):
    """Save the state of the run between optimizer steps, and end the run after a step if a signal was received.

    A state counts, as the file `path`, when the metrics of its last step have been logged: `PutStateInPlace` renames
    the file at that moment. A run that is killed in between is resumed from the previous state, and no row of the
    curves is lost.

    All processes stop after the same step, whichever of them received the signal. Clusters give little time to end, so
    that a signal does not wait for a validation: the state is saved before each one, and a signal ends the validation
    after its current batch.

    Args:
        path: File of the state.
        every: Steps between two saved states.
        also_at: Further steps after which the state is saved, such as the last one.
        also_every: The state is also saved at multiples of this number: the steps followed by a validation.
        accumulate: Backward passes of a process for one optimizer step.
        steps: Number of optimizer steps of the whole run.
        request: Listener for signals.
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
        self._is_pending = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._request.listen_again()  # Lightning has installed its own handlers, which end a run without saving
        self._stop_if_asked(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % self._accumulate:  # inside an accumulated step: a state there could not be resumed
            return
        step, signum = trainer.global_step, self._signal(trainer)
        if signum or step in self._also_at or any(step % every == 0 for every in self._every):
            trainer.save_checkpoint(pending_files(self._path)[0], weights_only=False)
            self._is_pending = True
        self._ending = signum

    def put_in_place(self, trainer: pl.Trainer) -> None:
        """Let the state that was saved last count."""
        if self._is_pending and trainer.is_global_zero:
            put_in_place(pending_files(self._path)[0], self._path)
            log_event("checkpoint", path=str(self._path), step=trainer.global_step)
        self._is_pending = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End the run if a signal came in the previous step, whose metrics have been logged by now."""
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
        """Number of the signal that any process has received; 0 if none has."""
        own = self._request.signum or 0
        # A cluster may signal one process only, but a process that ended alone would leave the others waiting for it.
        if trainer.world_size == 1:
            return own
        return int(trainer.strategy.reduce(torch.tensor(own, device=trainer.strategy.root_device), reduce_op="max"))

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check that the state to resume is not beyond the end of the run.

        Raises:
            ValueError: If the step of the state is after the last step of the run.
        """
        if checkpoint["global_step"] > self._steps:
            raise ValueError(
                f"the run to resume is at step {checkpoint['global_step']} already and cannot end at step "
                f"{self._steps}; resume it with as many steps or more"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"accumulate": self._accumulate}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that `accumulate` has not changed, since Lightning's batch counter, which is saved, depends on it.

        Raises:
            ValueError: If the state was saved with another `accumulate`.
        """
        if state_dict["accumulate"] != self._accumulate:
            raise ValueError(
                f"the run to resume accumulates over {state_dict['accumulate']} batches, not {self._accumulate}; "
                f"resume it with accumulate={state_dict['accumulate']}"
            )


class PutStateInPlace(pl.Callback):
    """Let a state that `save` has saved count once the metrics of its step are logged; the first of all callbacks."""

    def __init__(self, save: SaveState) -> None:
        self._save = save

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._save.put_in_place(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save.put_in_place(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save.put_in_place(trainer)


@runtime_checkable
class ReplacesValues(Protocol):
    """A module that replaces some of its values during training, such as dead codes, instead of updating them."""

    def replaced_values(self) -> dict[str, Bool[Tensor, "..."]]:
        """Masks of the values replaced since the last call, by the name of the module's parameter or buffer.

        A mask is broadcastable to its tensor. Weight averaging must start again at these values, as a mean of an old
        and a new code is no useful code.
        """
        ...


def _end(trainer: pl.Trainer, signum: int) -> NoReturn:
    """End this process. Only the exit status of the first process names the signal; the others end with status 0, so
    that launchers report no second failure."""
    raise Stopped(signum) if trainer.is_global_zero else SystemExit(0)


class ValidateAfterLastStep(pl.Callback):
    """Validate after the last step, also if it is no multiple of the steps between two validations.

    Lightning validates when `should_stop` is set; after the last step, setting it has no other effect.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._steps:
            trainer.should_stop = True


class StateFile(TorchCheckpointIO):
    """Save a state to a new file in the same folder, which replaces the previous state once it is completely on disk.

    Lightning's own implementation writes to TMPDIR and moves the file. If TMPDIR is on another file system, the move is
    a copy over the previous state, and a run that is killed meanwhile has no complete state.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Replace the file `path` by `checkpoint`; `storage_options` must be None."""
        assert storage_options is None
        with new_file(path) as scratch:
            torch.save(checkpoint, scratch)


class AveragedWeights(pl.Callback):
    """Exponential moving average of the trained weights and of floating-point buffers, in float32.

    The decay is min(decay, (1 + n) / (10 + n)) after n updates, as in TensorFlow's `ExponentialMovingAverage`, so that
    the random first weights are soon forgotten. Validation uses the average. For values that a module replaced (see
    `ReplacesValues`), the average starts again at the new value.

    Lightning's own callback is not used: it averages integer buffers too, restores the trained weights before the
    validation epoch of the module has ended, and does not apply the average if a run is resumed after its last step.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._updates = 0
        self._average: dict[str, Tensor] = {}
        self._aside: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the average at the module's weights, unless a saved average was loaded."""
        self._step = trainer.global_step
        average = self._average or {name: value.detach().float().clone() for name, value in _averaged(pl_module)}
        self._average = {name: value.to(pl_module.device) for name, value in average.items()}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:  # a backward pass of an accumulated step, no optimizer step yet
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
            # The trained weights are put aside: validation measures the average, which the checkpoint will hold.
            self._aside = {name: value.detach().clone() for name, value in _averaged(pl_module)}
            _copy(self._average, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _copy(self._aside, pl_module)
        self._aside = {}

    def apply_to(self, module: pl.LightningModule) -> None:
        """Copy the averaged weights to `module`."""
        _copy(self._average, module)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self._updates, "average": self._average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._updates, self._average = state_dict["updates"], state_dict["average"]


def _averaged(module: torch.nn.Module) -> list[tuple[str, Tensor]]:
    trained = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
    return trained + [(name, value) for name, value in module.named_buffers() if value.is_floating_point()]


def replaced_values(module: torch.nn.Module) -> dict[str, Tensor]:
    """Masks of the values that any submodule replaced since the last call, by the tensor's name in `module`."""
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
    """Check each quality gate once, after its step and the validation that may follow it.

    If the metric of a gate has not been logged by then, the gate is checked at the first step at which it is logged.
    """

    def __init__(self, gates: Sequence[QualityGate]) -> None:
        self._gates = list(gates)
        self._passed: list[str] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._judge(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the remaining gates.

        Raises:
            ValueError: If a gate fails, or its metric was never logged.
        """
        self._judge(trainer)
        unlogged = [gate.metric for gate in self._due(trainer)]
        if unlogged:
            logged = ", ".join(sorted(trainer.callback_metrics))
            _stop(trainer, f"no gate can judge {', '.join(unlogged)}, which is never logged; this run logs {logged}")

    def judge_resumed(self, trainer: pl.Trainer) -> None:
        """Check the remaining gates of a run that was resumed after its last step, by the metrics of a new validation.

        Metrics of training steps are not available any more; a warning names the gates on such metrics.

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
        complaints = trainer.strategy.broadcast(complaints)  # metrics may differ slightly; the first process decides
        if any(complaints):
            _stop(trainer, "; ".join(filter(None, complaints)))
        # By the gate's text, not its number: a resumed run may have other gates, and a changed gate is judged anew.
        self._passed += [repr(gate) for gate in due]

    def state_dict(self) -> dict[str, Any]:
        return {"passed": self._passed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._passed = list(state_dict["passed"])


def _stop(trainer: pl.Trainer, why: str) -> NoReturn:
    """End the run: the first process raises a ValueError with the reason `why`, the others exit with status 0."""
    if not trainer.is_global_zero:
        raise SystemExit(0)
    raise ValueError(f"{why}; stopped, and the state is kept: change the gate and go on with --resume=true")
