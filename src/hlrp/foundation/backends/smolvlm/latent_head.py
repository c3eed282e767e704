"""Heads that predict all code slots of a label at once from prompt features.

A head computes one feature vector per slot, and a linear layer per slot turns this vector into logits of the k codes.
Given the prompt features, the slots are independent of each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hlrp.foundation.backends.smolvlm.config import HEADS


@dataclass(frozen=True)
class SlotScores:
    """Slot features and code logits of a batch."""

    features: Float[Tensor, "b q d"]
    """One feature vector per slot, after layer norm."""
    logits: Float[Tensor, "b q k"]
    """Logits of the k codes in every slot."""


class QuerySlots(nn.Module):
    """One learned query per slot, refined by pre-norm transformer decoder blocks that attend to the prompt."""

    def __init__(self, *, width: int, num_slots: int, layers: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"head_heads must divide the model's width {width}, got {heads}")
        self.queries = nn.Parameter(torch.randn(num_slots, width))
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            nn.TransformerDecoderLayer(
                width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )

    def forward(self, hidden: Float[Tensor, "b l d"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b q d"]:
        """Slot features of every sample; tokens where `mask` is false are not attended to."""
        prompt = self.norm(hidden)
        slots = repeat(self.queries, "q d -> b q d", b=len(hidden))
        for block in self.blocks:
            slots = block(slots, prompt, memory_key_padding_mask=~mask)
        return slots


class PooledSlots(nn.Module):
    """The mean of the prompt tokens, mapped by an MLP to one vector per slot."""

    def __init__(self, *, width: int, num_slots: int, layers: int) -> None:
        super().__init__()
        self.num_slots = num_slots
        self.norm = nn.LayerNorm(width)
        inner = [part for _ in range(layers - 1) for part in (nn.Linear(width, width), nn.GELU())]
        self.mlp = nn.Sequential(*inner, nn.Linear(width, num_slots * width), nn.GELU())

    def forward(self, hidden: Float[Tensor, "b l d"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b q d"]:
        """Slot features of every sample; tokens where `mask` is false do not enter the mean."""
        kept = torch.where(mask[..., None], self.norm(hidden), 0.0)
        pooled = kept.sum(1) / mask.sum(1, keepdim=True)
        return rearrange(self.mlp(pooled), "b (q d) -> b q d", q=self.num_slots)


class LatentHead(nn.Module):
    """Slot features, and logits of the k codes of every slot.

    Args:
        kind: `query` or `pooled`.
        width: Width d of the prompt features.
        num_slots: Codes q of one label.
        codebook_size: Codebook entries k.
        layers: Decoder blocks of `query`, hidden layers of `pooled`.
        heads: Attention heads of `query`.

    Raises:
        ValueError: If `heads` does not divide `width`.
    """

    def __init__(self, kind: str, *, width: int, num_slots: int, codebook_size: int, layers: int, heads: int) -> None:
        super().__init__()
        assert kind in HEADS
        self.slots: QuerySlots | PooledSlots = (
            QuerySlots(width=width, num_slots=num_slots, layers=layers, heads=heads)
            if kind == "query"
            else PooledSlots(width=width, num_slots=num_slots, layers=layers)
        )
        self.norm = nn.LayerNorm(width)
        self.rows = nn.Parameter(torch.randn(num_slots, codebook_size, width) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(num_slots * codebook_size))

    def forward(self, hidden: Float[Tensor, "b l d"], mask: Bool[Tensor, "b l"]) -> SlotScores:
        """Compute slot features and logits in the head's own dtype; `hidden` may have any floating dtype."""
        features = self.norm(self.slots(hidden.to(self.rows.dtype), mask))
        logits = einsum(features, self.rows, "b q d, q k d -> b q k")
        return SlotScores(features, logits + self.bias.view(self.rows.shape[:2]))
