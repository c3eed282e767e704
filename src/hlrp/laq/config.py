"""Size and geometry of a latent action quantizer, and its presets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from hlrp.latent_spec import LatentSpec
from hlrp.runtime.checks import require_numbers

TargetName = Literal["pixels", "features", "flow"]
QuantizerName = Literal["fsq", "nsvq", "vq", "simvq", "rvq", "continuous"]


@dataclass(frozen=True, kw_only=True)
class LAQConfig:
    """Architecture of a `LatentActionQuantizer`."""

    spec: LatentSpec = field(default_factory=LatentSpec)
    """Codes it writes."""
    image_size: tuple[int, int] = (64, 64)
    """Height and width of its frames, in pixels."""
    patch_size: int = 16
    """Side of the square that one token stands for, in pixels; a power of two, 4 or more."""
    dim: int = 128
    """Width of the tokens."""
    heads: int = 4
    """Attention heads; `dim` must be a multiple."""
    encoder_layers: int = 2
    """Space-time blocks of the encoder."""
    decoder_layers: int = 2
    """Blocks of the decoder."""
    num_cameras: int = 1
    """Cameras of a clip; they follow each other along its channels, 3 each."""
    targets: tuple[TargetName, ...] = ("pixels",)
    """What the decoder predicts of the next frame: `pixels`, a frozen encoder's `features`, the `flow` towards it."""
    feature_dim: int = 0
    """Width of the frozen encoder's features; 0 without them."""
    action_dim: int = 0
    """Action values of one transition that a linear head reads from its codes; 0 without such a head."""
    quantizer: QuantizerName = "fsq"
    """`fsq`: finite scalar quantization (arXiv:2309.15505). `nsvq`: noise substitution (Vali & Bäckström, IEEE Access
    2022), as in LAPA. `vq`: codes as moving averages (arXiv:1711.00937). `simvq`: a linear map of fixed codes
    (arXiv:2411.02038). `rvq`: slots as the levels of one residual chain (arXiv:2107.03312). `continuous`: a beta-VAE's
    Gaussian latent, no codes."""

    def __post_init__(self) -> None:
        if self.quantizer not in get_args(QuantizerName):
            raise ValueError(f"quantizer must be one of {', '.join(get_args(QuantizerName))}, got {self.quantizer!r}")
        if self.patch_size < 4 or self.patch_size & (self.patch_size - 1):
            raise ValueError(f"patch_size must be a power of two, 4 or more, got {self.patch_size}")
        require_numbers(
            self, "image_size", "num_cameras", "dim", "heads", "encoder_layers", "decoder_layers", at_least=1
        )
        require_numbers(self, "feature_dim", "action_dim", at_least=0)
        if any(side % self.patch_size for side in self.image_size):
            raise ValueError(f"image_size {self.image_size} must be a multiple of patch_size {self.patch_size}")
        unknown = set(self.targets) - set(get_args(TargetName))
        if not self.targets or unknown or len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets must be one or more of {', '.join(get_args(TargetName))}, got {self.targets}")
        if (self.feature_dim > 0) != ("features" in self.targets):
            raise ValueError(
                f"feature_dim {self.feature_dim} and targets {self.targets} disagree; name both or neither"
            )
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} must be a multiple of heads {self.heads}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens of one frame."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def num_tokens(self) -> int:
        """Tokens of one frame of one camera."""
        return self.grid[0] * self.grid[1]

    @property
    def channels(self) -> int:
        """Channels of a frame."""
        return 3 * self.num_cameras


def debug() -> LAQConfig:
    """Walks every line in milliseconds; learns nothing."""
    return LAQConfig(image_size=(32, 32), dim=32, heads=2, encoder_layers=1, decoder_layers=1)


def small() -> LAQConfig:
    """Learns on a laptop's CPU in minutes."""
    return LAQConfig()


def base() -> LAQConfig:
    """One GPU, 128-pixel frames."""
    return LAQConfig(image_size=(128, 128), dim=512, heads=8, encoder_layers=6, decoder_layers=6)


def lapa() -> LAQConfig:
    """The size of LAPA's released quantizer (arXiv:2410.11758): 8 layers of width 1024, 256-pixel frames."""
    return LAQConfig(image_size=(256, 256), patch_size=32, dim=1024, heads=16, encoder_layers=8, decoder_layers=8)


PRESETS = {preset.__name__: preset for preset in (debug, small, base, lapa)}
"""Named sizes, for command lines."""
