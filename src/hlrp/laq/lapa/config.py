"""Size and geometry of LAPA's quantizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hlrp.laq.config import QuantizerName, TargetName
from hlrp.latent_spec import LatentSpec
from hlrp.runtime.checks import require_numbers


@dataclass(frozen=True)
class PoolShape:
    """How LAPA's convolutions pool a grid of patches to code slots."""

    grid: int
    """Patches along each side of a frame that its layers are made for."""
    kernel: tuple[int, int] | None
    """Kernel of the second convolution; None without one. The first has a kernel of 3 and a stride of 2."""
    stride: int = 1
    """Stride of the second convolution; its padding is 1 where it strides, else 0."""


POOL_SHAPES = {
    1: PoolShape(grid=8, kernel=(4, 4)),
    2: PoolShape(grid=8, kernel=(3, 4)),
    4: PoolShape(grid=8, kernel=(3, 3)),
    16: PoolShape(grid=16, kernel=(3, 3), stride=2),
    64: PoolShape(grid=16, kernel=None),
    256: PoolShape(grid=32, kernel=None),
}
"""By the number of code slots of a transition; LAPA knows no other numbers."""


@dataclass(frozen=True, kw_only=True)
class LapaConfig:
    """Architecture of a `LapaQuantizer`; the defaults are those of LAPA's released `laq_openx.pt`."""

    spec: LatentSpec = field(default_factory=LatentSpec)
    """Codes it writes. With more than two frames every consecutive pair is a clip of its own."""
    patch_size: int = 32
    """Side of the square that one token stands for, in pixels."""
    dim: int = 1024
    """Width of the tokens."""
    heads: int = 16
    """Attention heads."""
    head_dim: int = 64
    """Width of one head; `heads * head_dim` need not be `dim`."""
    spatial_layers: int = 8
    """Layers over the patches of a frame, in the encoder and again in the decoder."""
    temporal_layers: int = 8
    """Layers over the two frames, in the encoder."""

    def __post_init__(self) -> None:
        names = ("patch_size", "dim", "heads", "head_dim", "spatial_layers", "temporal_layers")
        require_numbers(self, *names, at_least=1)
        if self.spec.code_seq_len not in POOL_SHAPES:
            raise ValueError(
                f"code_seq_len of a LAPA quantizer must be one of {', '.join(map(str, POOL_SHAPES))}, got "
                f"{self.spec.code_seq_len}"
            )

    @property
    def grid(self) -> int:
        """Patches along each side of a frame."""
        return POOL_SHAPES[self.spec.code_seq_len].grid

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of its frames, in pixels."""
        return self.grid * self.patch_size, self.grid * self.patch_size

    @property
    def targets(self) -> tuple[TargetName, ...]:
        """What the decoder predicts."""
        return ("pixels",)

    @property
    def quantizer(self) -> QuantizerName:
        """How it was trained to round."""
        return "nsvq"

    @property
    def num_cameras(self) -> int:
        """Cameras of a clip."""
        return 1

    @property
    def channels(self) -> int:
        """Channels of a frame: RGB."""
        return 3


def lapa_config_from_description(values: dict[str, Any]) -> LapaConfig:
    """Inverse of `LapaQuantizer.description`."""
    return LapaConfig(**{**values, "spec": LatentSpec(**values["spec"])})
