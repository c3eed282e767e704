"""Train the action tokens' rows of a frozen vocabulary, and nothing else of it.

`weight[ids].requires_grad = True` acts on a copy and trains nothing, and a gradient mask still lets weight
decay shrink the frozen rows. Here the rows are a parameter of their own, laid over the frozen matrix.

State dicts hold the matrix with its rows in place, as the plain layer would: a checkpoint does not tell whether its
vocabulary was frozen, and loads into a model where it is or is not.

Shapes: b batch, l tokens, d width, a overlaid rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class _WithRows(nn.Module):
    """A frozen matrix whose rows `ids` come from the parameter `rows`; which the matrix of `tied_to` may share."""

    ids: Int[Tensor, " a"]
    slot_of_token: Int[Tensor, " V"]

    def __init__(self, base: nn.Embedding | nn.Linear, ids: Sequence[int], tied_to: _WithRows | None) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.rows = nn.Parameter(base.weight[list(ids)].detach().clone()) if tied_to is None else tied_to.rows
        self._is_tied = self._is_shared = tied_to is not None
        if tied_to is not None:
            tied_to._is_shared = True
        index = torch.tensor(list(ids), device=base.weight.device)
        self.register_buffer("ids", index, persistent=False)
        slots = torch.full((len(base.weight),), -1, device=base.weight.device)
        slots[index] = torch.arange(len(index), device=base.weight.device)
        self.register_buffer("slot_of_token", slots, persistent=False)
        self.register_state_dict_post_hook(_join_rows)
        self.register_load_state_dict_pre_hook(_split_rows)

    @property
    def weight(self) -> Float[Tensor, "V d"]:
        """The frozen matrix: its dtype and device are this module's."""
        return self.base.weight


class EmbeddingWithRows(_WithRows):
    """A frozen embedding whose rows `ids` are trained."""

    def __init__(self, base: nn.Embedding, ids: Sequence[int]) -> None:
        super().__init__(base, ids, None)

    def forward(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        """Embed `ids`."""
        slots = self.slot_of_token[ids]
        known = self.base(ids)
        return torch.where((slots >= 0)[..., None], self.rows[slots.clamp_min(0)].to(known.dtype), known)


class HeadWithRows(_WithRows):
    """A frozen output head whose logits of the tokens `ids` come from trained rows: its own or the embedding's."""

    def __init__(self, base: nn.Linear, ids: Sequence[int], *, tied_to: EmbeddingWithRows | None = None) -> None:
        super().__init__(base, ids, tied_to)

    def forward(self, hidden: Float[Tensor, "b l d"]) -> Float[Tensor, "b l V"]:
        """Logits of the whole vocabulary."""
        logits = self.base(hidden)
        return logits.index_copy(-1, self.ids, F.linear(hidden, self.rows.to(hidden.dtype)).to(logits.dtype))


def output_rows(head: nn.Module, ids: Int[Tensor, " a"]) -> Float[Tensor, "a d"]:
    """Rows of an output head for the tokens `ids`; a `HeadWithRows` must overlay all of them."""
    if isinstance(head, HeadWithRows):
        return head.rows[head.slot_of_token[ids]].to(head.weight.dtype)
    assert isinstance(head, nn.Linear)
    return head.weight[ids]


def _join_rows(module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Mapping[str, Any]) -> None:
    """A tied head is left out, as safetensors leaves out all but one of the tensors that share memory.

    Rows that learn in float32 beside a frozen matrix of fewer bits keep theirs: the joined matrix has the wider type.
    """
    assert isinstance(module, _WithRows)
    base, rows = state.pop(f"{prefix}base.weight"), state.pop(f"{prefix}rows")
    if not module._is_tied:
        dtype = torch.promote_types(base.dtype, rows.dtype)
        state[f"{prefix}weight"] = base.detach().to(dtype).index_copy(0, module.ids, rows.detach().to(dtype))


def _split_rows(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Which of two tied names a file holds is not known: the missing one keeps what it shares with the other."""
    assert isinstance(module, _WithRows)
    weight = state.pop(f"{prefix}weight", None)
    if weight is None and module._is_shared:
        weight = module.weight.index_copy(0, module.ids, module.rows.detach().to(module.weight.dtype))
    if weight is not None:  # else loading says what is missing
        state[f"{prefix}base.weight"], state[f"{prefix}rows"] = weight, weight[module.ids]
