"""Architecture of a latent action quantizer as a configuration, with named presets; it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from hlrp.latent_spec import LatentSpec
from hlrp.runtime.checks import require_numbers, require_one_of
from hlrp.runtime.class_paths import register_class
from hlrp.runtime.size_limits import LARGEST_SIDE_PX, MOST_CAMERAS, MOST_LAYERS, WIDEST_LAYER

TargetName = Literal["pixels", "features", "flow"]

QUANTIZERS: dict[str, str] = {
    "kmeans": "hlrp.laq.quantizers.kmeans:WhitenedKMeans",
    "fsq": "hlrp.laq.quantizers.fsq:FiniteScalarQuantizer",
    "nsvq": "hlrp.laq.quantizers.nsvq:NoiseSubstitutionQuantizer",
    "vq": "hlrp.laq.quantizers.vq:VectorQuantizer",
    "simvq": "hlrp.laq.quantizers.simvq:LinearCodebookQuantizer",
    "rvq": "hlrp.laq.quantizers.rvq:ResidualVectorQuantizer",
    "continuous": "hlrp.laq.quantizers.continuous:ContinuousBottleneck",
}
"""Class of every quantizer as "module:Class", by its name in `LAQConfig.quantizer`; see `quantizer_class`."""


def register_quantizer(name: str, path: str) -> None:
    """Make the `Quantizer` at `path` ("module:Class") known to configurations and command lines under `name`.

    Raises:
        ValueError: If `path` has another form, or `name` already belongs to another class.
    """
    register_class(QUANTIZERS, name, path)


@dataclass(frozen=True, kw_only=True)
class LAQConfig:
    """Architecture of a `LatentActionQuantizer`."""

    spec: LatentSpec = field(default_factory=LatentSpec)
    """Geometry of the codes that the quantizer writes."""
    image_size: tuple[int, int] = (64, 64)
    """Height and width of the frames, in pixels."""
    patch_size: int = 16
    """Side of a square image patch, which becomes one token, in pixels; a power of two, 4 or more."""
    dim: int = 128
    """Width of the transformer's tokens; a multiple of `heads`."""
    heads: int = 4
    """Number of attention heads."""
    encoder_layers: int = 2
    """Number of space-time transformer blocks in the encoder."""
    decoder_layers: int = 2
    """Number of transformer blocks in the decoder."""
    num_cameras: int = 1
    """Number of cameras m of a clip."""
    targets: tuple[TargetName, ...] = ("pixels",)
    """What the decoder predicts: the next frame's `pixels`, the change of a frozen vision model's `features`, or the
    optical `flow` to the next frame; one or more of them."""
    feature_dim: int = 0
    """Width of the frozen vision model's features; 0 if `features` is not a target."""
    action_dim: int = 0
    """Number of action values that a linear head predicts from the codes of one transition; 0 for no such head."""
    quantizer: str = "fsq"
    """Kind of quantizer. `kmeans`: residual k-means in whitened directions, fitted near the end of the training, which
    begins as `fsq`. `fsq`: finite scalar quantization (arXiv:2309.15505). `nsvq`: noise substitution (Vali &
    Bäckström, IEEE Access 2022), as in LAPA. `vq`: codebook of moving averages (arXiv:1711.00937). `simvq`: learned
    linear map of a fixed codebook (arXiv:2411.02038). `rvq`: residual quantization, one level for each code slot
    (arXiv:2107.03312). `continuous`: Gaussian latent of a beta-VAE, without codes."""

    def __post_init__(self) -> None:
        require_one_of("quantizer", self.quantizer, QUANTIZERS)
        if self.patch_size < 4 or self.patch_size & (self.patch_size - 1):
            raise ValueError(f"patch_size must be a power of two, 4 or more, got {self.patch_size}")
        require_numbers(self, "image_size", at_least=1, limit=LARGEST_SIDE_PX)
        require_numbers(self, "num_cameras", at_least=1, limit=MOST_CAMERAS)
        require_numbers(self, "dim", "heads", at_least=1, limit=WIDEST_LAYER)
        require_numbers(self, "encoder_layers", "decoder_layers", at_least=1, limit=MOST_LAYERS)
        require_numbers(self, "feature_dim", "action_dim", at_least=0, limit=WIDEST_LAYER)
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


def debug() -> LAQConfig:
    """For tests: runs every line of code in milliseconds, and is too small to learn anything useful."""
    return LAQConfig(image_size=(32, 32), dim=32, heads=2, encoder_layers=1, decoder_layers=1)


def tiny() -> LAQConfig:
    """For weights that are stored beside code: 64-pixel frames, 1.0 M parameters, a checkpoint of 4 MB."""
    return LAQConfig(dim=96)


def small() -> LAQConfig:
    """For a CPU: 64-pixel frames, trains on a laptop in minutes."""
    return LAQConfig()


def base() -> LAQConfig:
    """For one GPU: 128-pixel frames, 6 layers of width 512."""
    return LAQConfig(image_size=(128, 128), dim=512, heads=8, encoder_layers=6, decoder_layers=6)


def lapa() -> LAQConfig:
    """The size of LAPA's released quantizer (arXiv:2410.11758): 8 layers of width 1024, 256-pixel frames."""
    return LAQConfig(image_size=(256, 256), patch_size=32, dim=1024, heads=16, encoder_layers=8, decoder_layers=8)


PRESETS = {preset.__name__: preset for preset in (debug, tiny, small, base, lapa)}
"""Presets by the name that commands take, such as `--preset=small`."""
