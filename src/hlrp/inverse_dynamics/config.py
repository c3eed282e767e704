"""Options of inverse dynamics models, as on the command line. The module imports no torch, so that `--help` is fast."""

from __future__ import annotations

from dataclasses import dataclass

from hlrp.runtime.checks import require_numbers


@dataclass(frozen=True, kw_only=True)
class InverseDynamicsConfig:
    """Size and training of an ensemble of inverse dynamics models."""

    members: int = 3
    """Models of the ensemble, whose predictions are averaged. If a clip spans a single action, as many are trained per
    fold, and the confidence rests on how much they disagree."""
    steps: int = 300
    """Training steps of each model."""
    batch_size: int = 64
    """Clips per training step."""
    width: int = 32
    """Channels of the first convolution."""
    frames: int = 3
    """Frames of a clip that the convolutions see: the first, the last, and others at equal distances between them. A
    clip that is too short for them has fewer. With start=laq, the LAQ's encoder still sees the LAQ's frames alone."""
    lr: float = 2e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.05
    """Weight decay of AdamW, for matrices only."""
    dropout: float = 0.1
    """Share of the features that are dropped before the output layers in training."""
    max_shift: float = 0.1
    """Largest random shift of a clip in training, as a share of the width and height of its frames."""
    max_contrast: float = 0.2
    """Largest random change of a clip's contrast in training, as a share."""
    max_brightness: float = 0.08
    """Largest random change of a clip's brightness in training; pixels are in [0, 1]."""
    tolerance: float = 0.5
    """Error of an action up to which it counts as right, in standard deviations of the known actions."""
    folds: int = 3
    """Parts of the known actions; each is held out once, to measure errors and to calibrate the confidence."""
    seed: int = 0
    """Seed of weights, batches and augmentation."""

    def __post_init__(self) -> None:
        require_numbers(self, "members", "steps", "batch_size", at_least=1)
        require_numbers(self, "folds", "frames", at_least=2)
        require_numbers(self, "width", at_least=8)
        require_numbers(self, "lr", "tolerance", above=0)
        require_numbers(self, "weight_decay", "max_shift", "max_contrast", "max_brightness", at_least=0)
        require_numbers(self, "dropout", at_least=0, at_most=0.9)
        if self.width % 8:
            raise ValueError(f"width must be a multiple of 8, the number of normalized groups, got {self.width}")
