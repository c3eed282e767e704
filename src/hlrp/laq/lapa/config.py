"""Architecture of LAPA's quantizer as a configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from hlrp.laq.config import TargetName
from hlrp.latent_spec import LatentSpec
from hlrp.runtime.checks import require_numbers
from hlrp.runtime.size_limits import MOST_LAYERS, WIDEST_LAYER


@dataclass(frozen=True)
class PoolShape:
    """How LAPA's convolutions pool a grid of patches to code slots."""

    grid: int
    """Patches along each side of a frame."""
    kernel: tuple[int, int] | None
    """Kernel of the second convolution; None without one. The first always has kernel 3 and stride 2."""
    stride: int = 1
    """Stride of the second convolution. Its padding is 1 if the stride is above 1, else 0."""


POOL_SHAPES = {
    1: PoolShape(grid=8, kernel=(4, 4)),
    2: PoolShape(grid=8, kernel=(3, 4)),
    4: PoolShape(grid=8, kernel=(3, 3)),
    16: PoolShape(grid=16, kernel=(3, 3), stride=2),
    64: PoolShape(grid=16, kernel=None),
    256: PoolShape(grid=32, kernel=None),
}
"""Pooling by the number of code slots of a transition. LAPA's code supports these numbers only."""


@dataclass(frozen=True, kw_only=True)
class LapaConfig:
    """Architecture of a `LapaQuantizer`; the defaults are those of LAPA's released `laq_openx.pt`."""

    spec: LatentSpec = field(default_factory=LatentSpec)
    """Geometry of the codes. If clips have more than two frames, each consecutive pair is encoded by itself."""
    patch_size: int = 32
    """Side of a square image patch, which becomes one token, in pixels."""
    dim: int = 1024
    """Width of the tokens."""
    heads: int = 16
    """Number of attention heads."""
    head_dim: int = 64
    """Width of one attention head; `heads * head_dim` may differ from `dim`."""
    spatial_layers: int = 8
    """Layers with attention over the patches of a frame, in the encoder and in the decoder each."""
    temporal_layers: int = 8
    """Layers with attention over the two frames, in the encoder."""

    def __post_init__(self) -> None:
        require_numbers(self, "patch_size", "dim", "heads", "head_dim", at_least=1, limit=WIDEST_LAYER)
        require_numbers(self, "spatial_layers", "temporal_layers", at_least=1, limit=MOST_LAYERS)
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
        """Height and width of the frames, in pixels."""
        return self.grid * self.patch_size, self.grid * self.patch_size

    @property
    def targets(self) -> tuple[TargetName, ...]:
        """What the decoder predicts: pixels."""
        return ("pixels",)

    @property
    def quantizer(self) -> str:
        """Kind of quantizer that LAPA was trained with; see `LAQConfig.quantizer`."""
        return "nsvq"

    @property
    def num_cameras(self) -> int:
        """Number of cameras of a clip: 1."""
        return 1

    @property
    def action_dim(self) -> int:
        """Number of action values that an action head predicts: 0, as there is no such head."""
        return 0
