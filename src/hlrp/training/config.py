"""Training options of stages 1 and 2, as on the command line. The module imports no torch, so that `--help` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hlrp.runtime.checks import require_number, require_numbers
from hlrp.runtime.extras import require_packages
from hlrp.training.step_batches import require_divisible

StrategyName = Literal["auto", "ddp", "fsdp"]
PrecisionName = Literal["32-true", "bf16-mixed", "16-mixed"]
LoggerName = Literal["tensorboard", "wandb", "trackio"]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with a linear warmup and a cosine decay."""

    lr: float = 1e-3
    """Peak learning rate; for a pretrained hub model, about 1e-5."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay rates of AdamW's first and second moments."""
    weight_decay: float = 0.05
    """Decoupled weight decay of matrices; biases and norms have none."""
    warmup_steps: int = 50
    """Number of optimizer steps until the learning rate reaches its peak."""
    final_lr_fraction: float = 0.02
    """Learning rate at the end of training, as a fraction of the peak learning rate."""

    def __post_init__(self) -> None:
        require_numbers(self, "lr", above=0)
        require_numbers(self, "betas", at_least=0, below=1)
        require_numbers(self, "weight_decay", "warmup_steps", at_least=0)
        require_numbers(self, "final_lr_fraction", at_least=0, at_most=1)


@dataclass(frozen=True, kw_only=True)
class QualityGate:
    """A bound for a logged metric that ends the training if it is broken, such as when the codebook has collapsed."""

    metric: str
    """Name under which the metric is logged, such as val/loss."""
    at_step: int
    """Optimizer step after which the last logged value of the metric is checked, once."""
    at_least: float | None = None
    """Smallest value of the metric that passes."""
    at_most: float | None = None
    """Largest value of the metric that passes."""

    def __post_init__(self) -> None:
        require_number(f"at_step of the gate on {self.metric}", self.at_step, at_least=1)
        for name in ("at_least", "at_most"):
            require_number(f"{name} of the gate on {self.metric}", getattr(self, name))
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"the gate on {self.metric} bounds nothing; give it at_least or at_most")

    def complaint(self, value: float) -> str | None:
        """Message that says why `value` does not pass; None if it passes. NaN never passes."""
        if self.at_least is not None and not value >= self.at_least:
            return f"{self.metric} is {value:.4g} at step {self.at_step} and should be at least {self.at_least:g}"
        if self.at_most is not None and not value <= self.at_most:
            return f"{self.metric} is {value:.4g} at step {self.at_step} and should be at most {self.at_most:g}"
        return None


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """Devices, precision, logging and other settings of a training run. With several devices, the command starts one
    process for each of them."""

    devices: int = 1
    """Number of training processes on this machine, one for each GPU; on a CPU, any number."""
    num_nodes: int = 1
    """Number of machines; start the command on each of them, with torchrun or Slurm."""
    strategy: StrategyName = "auto"
    """How processes share the work: ddp copies the model to each process, fsdp shards the model over all processes,
    auto uses ddp if there are several processes."""
    precision: PrecisionName = "32-true"
    """Floating-point precision: 32-true, or bf16-mixed or 16-mixed for half-precision compute with float32 weights."""
    accumulate: int = 1
    """Number of backward passes of each process for one optimizer step; each pass takes a part of the batch."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient; 0 for no clipping."""
    ema_decay: float = 0.0
    """Decay of an exponential moving average of the weights, which the checkpoint then holds instead of the last
    weights; 0 for no averaging, 0.999 is a usual value."""
    compile: bool = False
    """Compile the training step with torch.compile: takes about a minute at the start, then trains faster on a GPU."""
    loggers: list[LoggerName] = field(default_factory=list)
    """Loggers in addition to curves.csv: tensorboard, wandb (offline with WANDB_MODE=offline), trackio (kept on
    this machine; `trackio show` shows the runs)."""
    gates: list[QualityGate] = field(default_factory=list)
    """Bounds for metrics that end the training if they are broken, such as [{metric: train/loss, at_step: 500, at_most:
    2.0}]."""

    def __post_init__(self) -> None:
        require_numbers(self, "devices", "num_nodes", "accumulate", at_least=1)
        require_numbers(self, "gradient_clip", at_least=0)
        require_numbers(self, "ema_decay", at_least=0, below=1)
        if self.strategy == "fsdp" and (self.ema_decay or self.compile or self.precision == "16-mixed"):
            raise ValueError("strategy fsdp goes without ema_decay, compile and 16-mixed; use ddp, or leave them out")
        for name in self.loggers:
            require_packages(name, needed_for=f"logging to {name}")

    @property
    def world_size(self) -> int:
        """Number of processes on all machines together."""
        return self.devices * self.num_nodes

    def require_divisible(self, batch_size: int) -> None:
        """Raise unless a batch can be divided equally among all processes and accumulated passes.

        Raises:
            ValueError: If `batch_size` is not a multiple of devices * num_nodes * accumulate.
        """
        require_divisible(batch_size, self.world_size * self.accumulate)

    def require_device(self, device: str) -> None:
        """Raise unless `device` supports the chosen precision and number of processes.

        Raises:
            ValueError: If `device` is a CPU and the precision needs a GPU, or `device` is one of several GPUs and there
                are several processes.
        """
        if ":" in device and self.world_size > 1:
            raise ValueError(
                f"device {device!r} is one device, but trainer.devices * trainer.num_nodes is {self.world_size}; leave "
                "out the number of the device"
            )
        if self.precision == "16-mixed" and device.partition(":")[0] == "cpu":
            raise ValueError("precision 16-mixed needs a GPU; use bf16-mixed or 32-true on a CPU")

    def require_reachable_gates(self, steps: int) -> None:
        """Raise unless every quality gate is checked within a run of `steps` optimizer steps.

        Raises:
            ValueError: If a gate is after the last step.
        """
        for gate in self.gates:
            if gate.at_step > steps:
                raise ValueError(f"the gate on {gate.metric} is at step {gate.at_step}, after the last, {steps}")
