"""From latent codes, and optionally the robot's state, to a chunk of continuous actions.

Shapes: b batch, c codes of one label (n transitions times s slots), k codebook entries, d code width, r state values,
h chunk steps, a action dimensions.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from hlrp.latents import LatentSpec


class CodeVectors(nn.Module):
    """The vector of every code.

    Codes are nominal: they enter as the vectors that the LAQ gave them, never as numbers.
    """

    codebook: Float[Tensor, "s k d"]

    def __init__(self, spec: LatentSpec) -> None:
        super().__init__()
        self.spec = spec
        generator = torch.Generator().manual_seed(0)
        shape = (spec.code_seq_len, spec.codebook_size, spec.code_dim)
        # Distinct random vectors until `use_codebook`: enough to tell codes apart. A buffer: saved, but never trained.
        self.register_buffer("codebook", torch.randn(shape, generator=generator))

    @property
    def width(self) -> int:
        """Values of all vectors of one label."""
        return self.spec.num_codes * self.spec.code_dim

    @torch.no_grad()
    def use_codebook(self, codebook: Float[Tensor, "s k d"]) -> None:
        """Take over the code vectors of a LAQ, scaled to unit variance.

        Raises:
            ValueError: If the codebook is of another geometry.
        """
        if codebook.shape != self.codebook.shape:
            raise ValueError(
                f"codebook is {tuple(codebook.shape)} (slots, codes, width), expected {tuple(self.codebook.shape)}; "
                "use labels and a policy of the same LAQ"
            )
        self.codebook.copy_(codebook / codebook.std().clamp_min(1e-6))

    def forward(self, codes: Int[Tensor, "b c"]) -> Float[Tensor, "b c d"]:
        """Vectors of codes in [0, k)."""
        slots = torch.arange(self.spec.code_seq_len, device=codes.device).repeat(self.spec.num_transitions)
        return self.codebook[slots, codes]


class CodeDecoder(CodeVectors):
    """An MLP over codebook vectors.

    Args:
        spec: Geometry of the codes.
        chunk_size: Steps h of a chunk.
        action_dim: Action dimensions a.
        state_dim: State values r; None decodes from codes alone.
        hidden_dim: Width of the two hidden layers.
    """

    def __init__(
        self, spec: LatentSpec, *, chunk_size: int, action_dim: int, state_dim: int | None, hidden_dim: int
    ) -> None:
        super().__init__(spec)
        self.chunk_size, self.action_dim, self.state_dim = chunk_size, action_dim, state_dim
        width = self.width + (state_dim or 0)
        self.layers = nn.Sequential(
            nn.Linear(width, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, chunk_size * action_dim),
        )

    def forward(self, codes: Int[Tensor, "b c"], state: Float[Tensor, "b r"] | None = None) -> Float[Tensor, "b h a"]:
        """Decode codes in [0, k); the state, where the decoder was built with one, is normalized."""
        features = [rearrange(super().forward(codes), "b c d -> b (c d)")]
        if self.state_dim is not None:
            assert state is not None, "this decoder was built with a state"
            features.append(state)
        return rearrange(self.layers(torch.cat(features, dim=-1)), "b (h a) -> b h a", h=self.chunk_size)
