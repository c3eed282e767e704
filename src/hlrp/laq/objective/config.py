"""How a quantizer is trained, as named on a command line; without torch, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from hlrp.runtime.checks import require_number, require_numbers
from hlrp.training.config import OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """How far the encoder's view of a clip is from the decoder's."""

    max_shift: float = 0.1
    """Largest shift along each axis, over the picture's side; the same for all frames of a clip."""
    max_brightness: float = 0.1
    """Largest change of brightness, over the range of a pixel."""
    max_contrast: float = 0.2
    """Largest relative change of contrast."""

    def __post_init__(self) -> None:
        require_numbers(self, "max_shift", at_least=0, below=0.5)
        require_numbers(self, "max_brightness", at_least=0)
        require_numbers(self, "max_contrast", at_least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the terms of the loss; the quantizer's own term has weight 1."""

    pixels: float = 10.0
    """Brings errors of a few thousandths to the scale of the quantizer's term."""
    coarse: float = 10.0
    """Of the same errors after averaging over squares; see `coarse_loss`."""
    sketch: float = 0.3
    """Of a linear reading of the change from the encoder's vectors; see `ChangeSketch`. 0 leaves it out."""
    features: float = 1.0
    """Of the error on a frozen encoder's features, where these are a target."""
    flow: float = 1.0
    """Of the error on the optical flow, where this is a target."""
    actions: float = 1.0
    """Of the action head, over labelled clips."""

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
    """What a quantizer is trained with."""

    optimizer: OptimizerConfig = field(default_factory=LAQOptimizerConfig)
    """AdamW, its warmup and its decay."""
    motion_strength: float = 15.0
    """Extra loss weight of what moved; see `motion_weight`."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """How the encoder's view differs from the decoder's."""
    losses: LossWeights = field(default_factory=LossWeights)
    """Weights of the terms of the loss."""

    def __post_init__(self) -> None:
        require_numbers(self, "motion_strength", at_least=0)


@dataclass(frozen=True, kw_only=True)
class LabellerConfig:
    """Training of the inverse-dynamics labeller."""

    steps: int = 300
    """Optimizer steps."""
    batch_size: int = 64
    """Clips of one step, drawn with replacement."""
    lr: float = 1e-3
    """Learning rate of AdamW, constant."""

    def __post_init__(self) -> None:
        require_numbers(self, "steps", at_least=1)
        require_numbers(self, "batch_size", at_least=2)
        require_numbers(self, "lr", above=0)
