"""Size and geometry of a latent action quantizer, and its presets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hlrp.latents import LatentSpec

QuantizerName = Literal["fsq", "vq"]


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
    quantizer: QuantizerName = "fsq"
    """`fsq`: finite scalar quantization (arXiv:2309.15505). `vq`: EMA vector quantization (arXiv:1711.00937)."""

    def __post_init__(self) -> None:
        if self.quantizer not in ("fsq", "vq"):
            raise ValueError(f"quantizer must be 'fsq' or 'vq', got {self.quantizer!r}")
        if self.patch_size < 4 or self.patch_size & (self.patch_size - 1):
            raise ValueError(f"patch_size must be a power of two, 4 or more, got {self.patch_size}")
        if any(side % self.patch_size for side in self.image_size):
            raise ValueError(f"image_size {self.image_size} must be a multiple of patch_size {self.patch_size}")
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} must be a multiple of heads {self.heads}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens of one frame."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def num_tokens(self) -> int:
        """Tokens of one frame."""
        return self.grid[0] * self.grid[1]


def debug() -> LAQConfig:
    """Walks every line in milliseconds; learns nothing."""
    return LAQConfig(image_size=(32, 32), dim=32, heads=2, encoder_layers=1, decoder_layers=1)


def small() -> LAQConfig:
    """Learns on a laptop's CPU in minutes."""
    return LAQConfig()


def base() -> LAQConfig:
    """One GPU, 128-pixel frames."""
    return LAQConfig(image_size=(128, 128), dim=512, heads=8, encoder_layers=6, decoder_layers=6)


PRESETS = {preset.__name__: preset for preset in (debug, small, base)}
"""Named sizes, for command lines."""
