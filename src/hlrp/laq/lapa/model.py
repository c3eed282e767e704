"""LAPA's quantizer with the interface of `LatentActionQuantizer`, to label and inspect data with its released weights.

Written from the paper (arXiv:2410.11758) and checked against the released code (LatentActionPretraining/LAPA on
GitHub). Where the two differ, this follows the code, since the released weights were trained with it.

Shapes: p pictures, or pairs of pictures; l = y*x patches of a picture, i j rows and columns inside a patch.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from hlrp.laq.decoder import PredictedChange
from hlrp.laq.lapa.blocks import LapaTransformer, RelativePositionBias
from hlrp.laq.lapa.config import POOL_SHAPES, LapaConfig
from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.quantizers import Quantized, Quantizer
from hlrp.latents import LatentSpec


class LapaQuantizer(LatentActionQuantizer):
    """LAPA's encoder, quantizer and decoder, for labelling and measuring only; training is not supported.

    The model has one camera and no action head, and its decoder predicts pixels only.
    """

    architecture = "lapa"
    config: LapaConfig

    def __init__(self, config: LapaConfig) -> None:
        super().__init__(config)
        self.eval()

    @staticmethod
    def large_parts(config: Any) -> nn.Module:
        """The whole quantizer, which can be built on the device "meta"."""
        return LapaQuantizer(config)

    def _build(self) -> None:
        """Create encoder, quantizer and decoder; in LAPA, encoder and decoder share the patch embedding."""
        patches = PatchEmbedding(self.config)
        bias = RelativePositionBias(self.config.dim, self.config.heads)
        self.encoder = LapaEncoder(self.config, patches, bias)
        self.quantizer = LapaCodebook(self.config.spec)
        self.decoder = LapaDecoder(self.config, patches, bias)

    def train(self, mode: bool = True) -> LapaQuantizer:
        """Set evaluation mode; training mode is refused.

        Raises:
            ValueError: If `mode` is true.
        """
        if mode:
            raise ValueError("a LAPA quantizer only labels; train one of ours with hlrp-train-laq")
        super().train(False)
        return self

    def description(self) -> dict[str, Any]:
        """The model's configuration as plain values, for JSON."""
        return asdict(self.config)


class PatchEmbedding(nn.Sequential):
    """One token per patch: the pixels of a patch, normalized, projected and normalized again."""

    def __init__(self, config: LapaConfig) -> None:
        values = 3 * config.patch_size**2
        super().__init__(nn.LayerNorm(values), nn.Linear(values, config.dim), nn.LayerNorm(config.dim))
        self.patch_size = config.patch_size

    def forward(self, frames: Float[Tensor, "p c h w"]) -> Float[Tensor, "p l d"]:
        """Embed frames given as float32 in [0, 1]."""
        patches = rearrange(frames, "p c (y i) (x j) -> p (y x) (c i j)", i=self.patch_size, j=self.patch_size)
        return super().forward(patches)


class SlotPool(nn.Module):
    """Project tokens to the code width, then pool the grid of patches to the grid of code slots by convolutions."""

    def __init__(self, config: LapaConfig) -> None:
        super().__init__()
        v, shape = config.spec.code_dim, POOL_SHAPES[config.spec.code_seq_len]
        layers: list[nn.Module] = [nn.Conv2d(v, v, kernel_size=3, stride=2, padding=1)]
        if shape.kernel is not None:
            padding = 1 if shape.stride > 1 else 0
            layers += [nn.ReLU(), nn.Conv2d(v, v, shape.kernel, stride=shape.stride, padding=padding)]
        self.grid = config.grid
        self.to_code = nn.Linear(config.dim, v)
        self.convolutions = nn.Sequential(*layers)

    def forward(self, tokens: Float[Tensor, "p l d"]) -> Float[Tensor, "p s v"]:
        """Pool the tokens of each frame to one vector per code slot."""
        values = self.convolutions(rearrange(self.to_code(tokens), "p (y x) v -> p v y x", y=self.grid))
        return rearrange(values, "p v y x -> p (y x) v")


class LapaEncoder(nn.Module):
    """Attention over space, then over time, in each pair of consecutive frames.

    The latent of a transition is the pooled later frame minus the pooled earlier frame.
    """

    def __init__(self, config: LapaConfig, patches: PatchEmbedding, bias: RelativePositionBias) -> None:
        super().__init__()
        self.grid = config.grid
        self.patches, self.bias = patches, bias
        self.space = LapaTransformer(config.dim, config.heads, config.head_dim, config.spatial_layers)
        self.time = LapaTransformer(config.dim, config.heads, config.head_dim, config.temporal_layers)
        self.pool = SlotPool(config)

    def forward(self, frames: Float[Tensor, "b t 1 c h w"]) -> Float[Tensor, "b n s v"]:
        """Encode frames given as float32 in [0, 1]."""
        b = len(frames)
        pairs = torch.stack([frames[:, :-1], frames[:, 1:]], dim=2)  # (b, n, 2, 1, c, h, w)
        tokens = self.patches(rearrange(pairs, "b n two 1 c h w -> (b n two) c h w"))
        video = (len(tokens) // 2, 2, self.grid, self.grid)
        tokens = self.space(tokens, video, bias=self.bias(self.grid))
        by_place = self.time(rearrange(tokens, "(p two) l d -> (p l) two d", two=2), video)
        earlier, later = rearrange(by_place, "(p l) two d -> two p l d", two=2, l=self.grid**2)
        return rearrange(self.pool(later) - self.pool(earlier), "(b n) s v -> b n s v", b=b)


class LapaCodebook(Quantizer):
    """Nearest entry of one codebook that all slots share.

    LAPA trains the codebook with noise in place of the quantization error (NSVQ). Labelling needs no noise.
    """

    def __init__(self, spec: LatentSpec) -> None:
        super().__init__()
        self.entries = nn.Parameter(torch.randn(spec.codebook_size, spec.code_dim))

    def quantize(self, latents: Float[Tensor, "b s v"]) -> Quantized:
        squares = self.entries.square().sum(1)
        ids = (squares - 2 * latents @ self.entries.T).argmin(dim=-1)  # squared distance without |latent|²
        return Quantized(self.lookup(ids), ids, latents.new_zeros(()))

    def lookup(self, ids: Int[Tensor, "b s"]) -> Float[Tensor, "b s v"]:
        return self.entries[ids]

    def codebook(self, spec: LatentSpec) -> Float[Tensor, "s k v"]:
        """Code vectors of every slot, (s, k, v); all slots have the same ones."""
        return self.entries.expand(spec.code_seq_len, -1, -1).detach().clone()


class LapaDecoder(nn.Module):
    """Predict the next frame: the patches of a frame cross-attend to the code vectors of the transition."""

    def __init__(self, config: LapaConfig, patches: PatchEmbedding, bias: RelativePositionBias) -> None:
        super().__init__()
        self.grid, self.patch_size = config.grid, config.patch_size
        self.patches, self.bias = patches, bias
        self.from_code = nn.Linear(config.spec.code_dim, config.dim)
        self.space = LapaTransformer(
            config.dim, config.heads, config.head_dim, config.spatial_layers, reads_memory=True
        )
        self.to_pixels = nn.Linear(config.dim, 3 * config.patch_size**2)

    def forward(self, frames: Float[Tensor, "b n 1 c h w"], vectors: Float[Tensor, "b n s v"]) -> PredictedChange:
        """Predict the change after each frame (float32 in [0, 1]) from the code vectors of its transition."""
        b = len(frames)
        memory = self.from_code(mixed_slots(rearrange(vectors, "b n s v -> (b n) s v")))
        tokens = self.patches(rearrange(frames, "b n 1 c h w -> (b n) c h w"))
        video = (len(tokens), 1, self.grid, self.grid)
        tokens = self.space(tokens, video, memory=memory, bias=self.bias(self.grid))
        pictures = rearrange(
            self.to_pixels(tokens),
            "(b n) (y x) (c i j) -> b n 1 c (y i) (x j)",
            b=b,
            y=self.grid,
            i=self.patch_size,
            c=3,
        )
        return PredictedChange(pixels=pictures - frames, features=None, flow=None)


def mixed_slots(vectors: Float[Tensor, "b s v"]) -> Float[Tensor, "b s v"]:
    """Rearrange code vectors to the layout with which LAPA's decoder was trained.

    LAPA's code reshapes the (s, v) values to (v, s) without moving them, then transposes. With more than one slot, each
    of the s resulting vectors therefore holds values of all codes. The released weights expect this layout.
    """
    b, s, v = vectors.shape
    return vectors.reshape(b, v, s).transpose(1, 2)
