"""Decoder from latent codes to actions that reuses the LAQ's own decoder, which models how a code changes a frame.

The LAQ's decoder gets frame t for every transition, because later frames do not exist at inference. Sizes of images are
`height width` here, since h counts the steps of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from hlrp.experts.code_decoder import ActionHead
from hlrp.laq.config import LAQConfig
from hlrp.laq.decoder import TransitionDecoder
from hlrp.laq.model import LatentActionQuantizer


class LAQCodeDecoder(nn.Module):
    """Decoder tokens of a LAQ, pooled and mapped to actions by an MLP.

    Args:
        config: Configuration of the LAQ.
        chunk_size: Steps h of a chunk.
        action_dim: Action dimensions a.
        state_dim: State values r; None decodes from codes and frame alone.
        hidden_dim: Width of the MLP's hidden layers.
        layers: Hidden layers of the MLP; 0 is a linear map.
    """

    codebook: Float[Tensor, "s k v"]

    def __init__(
        self,
        config: LAQConfig,
        *,
        chunk_size: int,
        action_dim: int,
        state_dim: int | None,
        hidden_dim: int,
        layers: int,
    ) -> None:
        super().__init__()
        self.config, self.state_dim = config, state_dim
        spec = config.spec
        self.register_buffer("codebook", torch.zeros(spec.code_seq_len, spec.codebook_size, spec.code_dim))
        self.trunk = TransitionDecoder(config)
        self.trunk.heads = nn.ModuleDict()  # drops the heads that predict frames; only tokens are used
        width = spec.num_transitions * (spec.code_seq_len + 1) * config.dim + (state_dim or 0)
        self.head = ActionHead(
            width, chunk_size=chunk_size, action_dim=action_dim, hidden_dim=hidden_dim, layers=layers
        )

    @classmethod
    @torch.no_grad()
    def of_laq(cls, laq: LatentActionQuantizer, **head: Any) -> LAQCodeDecoder:
        """Build a decoder with copies of the codebook and the decoder of `laq`, and a new MLP.

        Args:
            laq: The latent action quantizer.
            **head: Arguments of the constructor except `config`.

        Raises:
            ValueError: If `laq` has no `TransitionDecoder`, as in other architectures.
        """
        if not (isinstance(laq.decoder, TransitionDecoder) and isinstance(laq.config, LAQConfig)):
            raise ValueError(
                f"a quantizer of the architecture {laq.architecture!r} has no decoder for actions to build on; use a "
                "quantizer of hlrp-train-laq, or the mlp decoder"
            )
        decoder = cls(laq.config, **head)
        decoder.codebook.copy_(laq.codebook())
        weights = {name: value for name, value in laq.decoder.state_dict().items() if not name.startswith("heads.")}
        decoder.trunk.load_state_dict(weights, strict=True)
        return decoder

    def forward(
        self,
        codes: Int[Tensor, "b q"],
        frame: Float[Tensor, "b m c height width"],
        state: Float[Tensor, "b r"] | None = None,
    ) -> Float[Tensor, "b h a"]:
        """Decode codes in [0, k) to normalized actions, given frame t (float32 in [0, 1]) and the normalized state."""
        n = self.config.spec.num_transitions
        by_transition = rearrange(codes, "b (n s) -> b n s", n=n)
        vectors = self.codebook[torch.arange(self.config.spec.code_seq_len, device=codes.device), by_transition]
        patches, slots = self.trunk.tokens(repeat(frame, "b m c h w -> b n m c h w", n=n), vectors)
        # Patch tokens are averaged, but slot tokens are kept apart, since each stands for one code.
        summary = torch.cat([patches.mean(1, keepdim=True), slots], dim=1)
        features = rearrange(summary, "(b n) l d -> b (n l d)", n=n)
        if self.state_dim is not None:
            assert state is not None, "this decoder was built with a state"
            features = torch.cat([features, state], dim=-1)
        return self.head(features)
