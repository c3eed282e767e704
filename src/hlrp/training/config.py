"""How a stage is trained, as named on a command line; without torch, so that `--help` and a mistake answer at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hlrp.runtime.checks import require_number, require_numbers
from hlrp.runtime.extras import require_packages
from hlrp.training.step_batches import require_divisible

StrategyName = Literal["auto", "ddp", "fsdp"]
PrecisionName = Literal["32-true", "bf16-mixed", "16-mixed"]
LoggerName = Literal["tensorboard", "wandb"]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with a linear warmup and a cosine decay."""

    lr: float = 1e-3
    """Peak learning rate; 1e-5 suits a pretrained hub model."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay rates of AdamW's moments."""
    weight_decay: float = 0.05
    """Decoupled weight decay of matrices; biases and norms have none."""
    warmup_steps: int = 50
    """Optimizer steps until the peak."""
    final_lr_fraction: float = 0.02
    """Learning rate at the end, over the peak."""

    def __post_init__(self) -> None:
        require_numbers(self, "lr", above=0)
        require_numbers(self, "betas", at_least=0, below=1)
        require_numbers(self, "weight_decay", "warmup_steps", at_least=0)
        require_numbers(self, "final_lr_fraction", at_least=0, at_most=1)


@dataclass(frozen=True, kw_only=True)
class QualityGate:
    """A bound that a logged figure must keep, or the run stops: hours of training are not spent on a collapsed code."""

    metric: str
    """Name under which the figure is logged, such as val/loss."""
    at_step: int
    """Optimizer steps after which its last logged value is judged, once."""
    at_least: float | None = None
    """Lowest value that passes."""
    at_most: float | None = None
    """Highest value that passes."""

    def __post_init__(self) -> None:
        require_number(f"at_step of the gate on {self.metric}", self.at_step, at_least=1)
        for name in ("at_least", "at_most"):
            require_number(f"{name} of the gate on {self.metric}", getattr(self, name))
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"the gate on {self.metric} bounds nothing; give it at_least or at_most")

    def complaint(self, value: float) -> str | None:
        """What is wrong with `value`; None where it passes. NaN never passes."""
        if self.at_least is not None and not value >= self.at_least:
            return f"{self.metric} is {value:.4g} at step {self.at_step} and should be at least {self.at_least:g}"
        if self.at_most is not None and not value <= self.at_most:
            return f"{self.metric} is {value:.4g} at step {self.at_step} and should be at most {self.at_most:g}"
        return None


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """On what, and how, a stage is trained. Several devices: the command starts a process of itself for each."""

    devices: int = 1
    """Processes on this machine, one for each GPU; on a CPU, as many as wanted."""
    num_nodes: int = 1
    """Machines; start the command on each, with torchrun or Slurm."""
    strategy: StrategyName = "auto"
    """How processes share the work: ddp copies the model to each, fsdp shards it over them; auto is ddp if there are
    several."""
    precision: PrecisionName = "32-true"
    """Arithmetic: 32-true, or bf16-mixed and 16-mixed, which compute in half precision; weights learn in float32."""
    accumulate: int = 1
    """Backward passes of each process that make one optimizer step, each on its part of the batch."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient; 0 leaves it alone."""
    ema_decay: float = 0.0
    """Decay of a moving average of the weights, which the finished checkpoint then holds; 0 is off, 0.999 usual."""
    compile: bool = False
    """Compile the training step with torch.compile: a minute at the start, then faster on a GPU."""
    loggers: list[LoggerName] = field(default_factory=list)
    """Where else than to curves.csv the figures go: tensorboard, wandb (offline with WANDB_MODE=offline)."""
    gates: list[QualityGate] = field(default_factory=list)
    """Bounds that figures must keep, such as [{metric: train/loss, at_step: 500, at_most: 2.0}], or the run stops."""

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
        """Processes in all."""
        return self.devices * self.num_nodes

    def require_divisible(self, batch_size: int) -> None:
        """Refuse a batch that does not fall into equal parts.

        Raises:
            ValueError: If `batch_size` is not a multiple of devices * num_nodes * accumulate.
        """
        require_divisible(batch_size, self.world_size * self.accumulate)

    def require_device(self, device: str) -> None:
        """Refuse a device that cannot do this arithmetic.

        Raises:
            ValueError: If `device` is a CPU and the precision needs a GPU.
        """
        if self.precision == "16-mixed" and device.partition(":")[0] == "cpu":
            raise ValueError("precision 16-mixed needs a GPU; use bf16-mixed or 32-true on a CPU")
