"""Train the action tokens' rows of a frozen vocabulary, and nothing else of it.

`weight[ids].requires_grad = True` acts on a copy and trains nothing, and a gradient mask still lets weight
decay shrink the frozen rows. Here the rows are a parameter of their own, laid over the frozen matrix.

Shapes: b batch, l tokens, d width, a overlaid rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class EmbeddingWithRows(nn.Module):
    """A frozen embedding whose rows `ids` come from `rows` instead."""

    slot_of_token: Int[Tensor, " V"]

    def __init__(self, base: nn.Embedding, ids: Sequence[int], rows: nn.Parameter) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.rows = rows
        self.register_buffer("slot_of_token", _slots(ids, base.weight), persistent=False)

    @property
    def weight(self) -> Float[Tensor, "V d"]:
        """The frozen matrix: its dtype and device are this module's."""
        return self.base.weight

    def forward(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        """Embed `ids`."""
        slots = self.slot_of_token[ids]
        return torch.where((slots >= 0)[..., None], self.rows[slots.clamp_min(0)], self.base(ids))


class HeadWithRows(nn.Module):
    """A frozen output head whose logits of the tokens `ids` come from `rows` instead."""

    ids: Int[Tensor, " a"]
    slot_of_token: Int[Tensor, " V"]

    def __init__(self, base: nn.Linear, ids: Sequence[int], rows: nn.Parameter) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.rows = rows
        self.register_buffer("ids", torch.tensor(list(ids), device=base.weight.device), persistent=False)
        self.register_buffer("slot_of_token", _slots(ids, base.weight), persistent=False)

    @property
    def weight(self) -> Float[Tensor, "V d"]:
        """The frozen matrix: its dtype and device are this module's."""
        return self.base.weight

    def forward(self, hidden: Float[Tensor, "b l d"]) -> Float[Tensor, "b l V"]:
        """Logits of the whole vocabulary."""
        return self.base(hidden).index_copy(-1, self.ids, F.linear(hidden, self.rows))


def output_rows(head: nn.Module, ids: Int[Tensor, " a"]) -> Float[Tensor, "a d"]:
    """Rows of an output head for the tokens `ids`; a `HeadWithRows` must overlay all of them."""
    if isinstance(head, HeadWithRows):
        return head.rows[head.slot_of_token[ids]]
    assert isinstance(head, nn.Linear)
    return head.weight[ids]


def _slots(ids: Sequence[int], weight: Float[Tensor, "V d"]) -> Int[Tensor, " V"]:
    """Row of every vocabulary token among `ids`, -1 where it has none."""
    slots = torch.full((len(weight),), -1, device=weight.device)
    slots[list(ids)] = torch.arange(len(ids), device=weight.device)
    return slots
