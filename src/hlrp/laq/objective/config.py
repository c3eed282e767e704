"""Training options of the quantizer, as on the command line. The module imports no torch, so that `--help` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field

from hlrp.runtime.checks import require_number, require_numbers
from hlrp.training.config import OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """Augmentation of the encoder's input: how far it may differ from the frames that the decoder predicts."""

    max_shift: float = 0.1
    """Largest random shift of a clip along each axis, as a fraction of the picture's side; below 0.5."""
    max_brightness: float = 0.1
    """Largest random change of brightness, for pixels in [0, 1]."""
    max_contrast: float = 0.2
    """Largest random change of contrast, as a fraction; below 1."""

    def __post_init__(self) -> None:
        require_numbers(self, "max_shift", at_least=0, below=0.5)
        require_numbers(self, "max_brightness", at_least=0)
        require_numbers(self, "max_contrast", at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the loss terms; the quantizer's own term has weight 1."""

    pixels: float = 10.0
    """Weight of the squared error of predicted pixels, which is a few thousandths without it."""
    coarse: float = 10.0
    """Weight of the pixel error after averaging over squares of 4 and 8 pixels; see `coarse_loss`."""
    sketch: float = 0.3
    """Weight of the error of a small picture of the change, predicted linearly from the encoder's vectors (see
    `ChangeSketch`); 0 leaves this term out."""
    features: float = 1.0
    """Weight of the error of a frozen vision model's features, if they are a target."""
    flow: float = 1.0
    """Weight of the error of the optical flow, if it is a target."""
    actions: float = 1.0
    """Weight of the error of the action head, over labelled clips."""

    def __post_init__(self) -> None:
        for name, weight in vars(self).items():
            require_number(f"the loss weight of {name}", weight, at_least=0)


@dataclass(frozen=True, kw_only=True)
class LAQOptimizerConfig(OptimizerConfig):
    """AdamW with a linear warmup and a cosine decay."""

    lr: float = 1.5e-3
    """Peak learning rate."""


@dataclass(frozen=True, kw_only=True)
class LAQTrainingConfig:
    """Optimizer, loss and augmentation of a quantizer's training."""

    optimizer: OptimizerConfig = field(default_factory=LAQOptimizerConfig)
    """Learning rate, its schedule and weight decay."""
    motion_strength: float = 15.0
    """Extra loss weight of pixels that change by half their range or more; see `motion_weight`."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """Augmentation of the encoder's input."""
    losses: LossWeights = field(default_factory=LossWeights)
    """Weights of the loss terms."""

    def __post_init__(self) -> None:
        require_numbers(self, "motion_strength", at_least=0)


@dataclass(frozen=True, kw_only=True)
class LabellerConfig:
    """Training of the inverse-dynamics labeller, a baseline that learns from labelled clips only."""

    steps: int = 300
    """Number of optimizer steps."""
    batch_size: int = 64
    """Clips in a batch, sampled with replacement."""
    lr: float = 1e-3
    """Constant learning rate of AdamW."""

    def __post_init__(self) -> None:
        require_numbers(self, "steps", at_least=1)
        require_numbers(self, "batch_size", at_least=2)
        require_numbers(self, "lr", above=0)
