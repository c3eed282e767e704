"""Decoder from latent codes, and optionally the robot's state, to a chunk of continuous actions."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from hlrp.latents import LatentSpec


class CodeVectors(nn.Module):
    """Lookup table from codes to vectors.

    Codes are nominal, so a model gets the LAQ's code vectors or learned vectors, never the numbers of the codes.

    Args:
        spec: Geometry of the codes.
        learned_width: Learn vectors of this width; None uses the LAQ's code vectors, which are not trained.
    """

    codebook: Float[Tensor, "s k v"]

    def __init__(self, spec: LatentSpec, *, learned_width: int | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.is_learned = learned_width is not None
        generator = torch.Generator().manual_seed(0)
        # Random vectors distinguish the codes even if `use_codebook` is never called; the seed makes them reproducible.
        vectors = torch.randn(
            spec.code_seq_len, spec.codebook_size, learned_width or spec.code_dim, generator=generator
        )
        if self.is_learned:
            self.codebook = nn.Parameter(vectors)
        else:
            self.register_buffer("codebook", vectors)  # saved, but never trained

    @property
    def width(self) -> int:
        """Total width of the vectors of one label, q * v."""
        return self.spec.num_codes * self.codebook.shape[-1]

    @torch.no_grad()
    def use_codebook(self, codebook: Float[Tensor, "s k v"]) -> None:
        """Copy the code vectors of a LAQ, scaled to unit variance; does nothing if vectors are learned.

        Raises:
            ValueError: If the codebook has another shape.
        """
        if self.is_learned:
            return
        if codebook.shape != self.codebook.shape:
            raise ValueError(
                f"codebook is {tuple(codebook.shape)} (slots, codes, width), expected {tuple(self.codebook.shape)}; "
                "use labels and a policy of the same LAQ"
            )
        self.codebook.copy_(codebook / codebook.std().clamp_min(1e-6))

    def forward(self, codes: Int[Tensor, "b q"]) -> Float[Tensor, "b q v"]:
        """Look up the vectors of codes in [0, k)."""
        slots = torch.arange(self.spec.code_seq_len, device=codes.device).repeat(self.spec.num_transitions)
        return self.codebook[slots, codes]


class ActionHead(nn.Module):
    """Multi-layer perceptron (MLP) from features to a chunk of actions.

    Args:
        width: Number of input features.
        chunk_size: Steps h of a chunk.
        action_dim: Action dimensions a.
        hidden_dim: Width of the hidden layers.
        layers: Hidden layers; 0 is a linear map.
    """

    def __init__(self, width: int, *, chunk_size: int, action_dim: int, hidden_dim: int, layers: int) -> None:
        super().__init__()
        self.chunk_size = chunk_size
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [nn.Linear(width, hidden_dim), nn.GELU()]
            width = hidden_dim
        self.layers = nn.Sequential(*parts, nn.Linear(width, chunk_size * action_dim))

    def forward(self, features: Float[Tensor, "b _"]) -> Float[Tensor, "b h a"]:
        """Predict a chunk of normalized actions."""
        return rearrange(self.layers(features), "b (h a) -> b h a", h=self.chunk_size)


class CodeToActionDecoder(nn.Module):
    """MLP from the vectors of all codes, and optionally the state, to a chunk of actions.

    Args:
        spec: Geometry of the codes.
        chunk_size: Steps h of a chunk.
        action_dim: Action dimensions a.
        state_dim: State values r; None decodes from codes alone.
        hidden_dim: Width of the hidden layers.
        layers: Hidden layers; 0 is a linear map.
    """

    def __init__(
        self,
        spec: LatentSpec,
        *,
        chunk_size: int,
        action_dim: int,
        state_dim: int | None,
        hidden_dim: int,
        layers: int = 2,
    ) -> None:
        super().__init__()
        self.state_dim = state_dim
        self.codes = CodeVectors(spec)
        self.head = ActionHead(
            self.codes.width + (state_dim or 0),
            chunk_size=chunk_size,
            action_dim=action_dim,
            hidden_dim=hidden_dim,
            layers=layers,
        )

    def forward(self, codes: Int[Tensor, "b q"], state: Float[Tensor, "b r"] | None = None) -> Float[Tensor, "b h a"]:
        """Decode codes in [0, k) to normalized actions; `state` is normalized, and required if `state_dim` is set."""
        features = rearrange(self.codes(codes), "b q v -> b (q v)")
        if self.state_dim is not None:
            assert state is not None, "this decoder was built with a state"
            features = torch.cat([features, state], dim=-1)
        return self.head(features)
