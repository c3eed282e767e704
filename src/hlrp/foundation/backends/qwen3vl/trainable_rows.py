"""Train only the rows of the action tokens in a frozen embedding or output head.

`weight[ids].requires_grad = True` acts on a copy and trains nothing, and a gradient mask still lets weight decay
shrink the frozen rows. Here the trained rows are a separate parameter that replaces rows of the frozen matrix.

State dicts hold the whole matrix with the trained rows inserted, like the plain layer. A checkpoint therefore loads
into a model with a frozen vocabulary and into one without.

Shapes: b batch, l tokens, d width, a trained rows, V vocabulary size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class _WithRows(nn.Module):
    """A frozen matrix whose rows `ids` are replaced by the parameter `rows`.

    An output head that is tied to the embedding shares the parameter `rows` of `tied_to`.
    """

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
        """The frozen matrix, with the initial values in the trained rows; transformers reads its dtype and device."""
        return self.base.weight


class EmbeddingWithRows(_WithRows):
    """A frozen embedding of which only the rows `ids` are trained."""

    def __init__(self, base: nn.Embedding, ids: Sequence[int]) -> None:
        super().__init__(base, ids, None)

    def forward(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        """Embeddings of the tokens `ids`."""
        slots = self.slot_of_token[ids]
        known = self.base(ids)
        return torch.where((slots >= 0)[..., None], self.rows[slots.clamp_min(0)].to(known.dtype), known)


class HeadWithRows(_WithRows):
    """A frozen output head of which only the rows `ids` are trained; they may be shared with the embedding."""

    def __init__(self, base: nn.Linear, ids: Sequence[int], *, tied_to: EmbeddingWithRows | None = None) -> None:
        super().__init__(base, ids, tied_to)

    def forward(self, hidden: Float[Tensor, "b l d"]) -> Float[Tensor, "b l V"]:
        """Logits of the whole vocabulary."""
        logits = self.base(hidden)
        return logits.index_copy(-1, self.ids, F.linear(hidden, self.rows.to(hidden.dtype)).to(logits.dtype))


def output_rows(head: nn.Module, ids: Int[Tensor, " a"]) -> Float[Tensor, "a d"]:
    """Weights of an output head for the tokens `ids`; in a `HeadWithRows`, all of them must be trained rows."""
    if isinstance(head, HeadWithRows):
        return head.rows[head.slot_of_token[ids]].to(head.weight.dtype)
    assert isinstance(head, nn.Linear)
    return head.weight[ids]


def _join_rows(module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Mapping[str, Any]) -> None:
    """State-dict hook: replace `base.weight` and `rows` by one matrix, named `weight` as in the plain layer.

    A tied head is left out, because safetensors stores tensors that share memory only once. The joined matrix has the
    wider of the two dtypes: rows are trained in float32, and a bfloat16 matrix would round them.
    """
    assert isinstance(module, _WithRows)
    base, rows = state.pop(f"{prefix}base.weight"), state.pop(f"{prefix}rows")
    if not module._is_tied:
        dtype = torch.promote_types(base.dtype, rows.dtype)
        state[f"{prefix}weight"] = base.detach().to(dtype).index_copy(0, module.ids, rows.detach().to(dtype))


def _split_rows(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Hook before loading: split the matrix `weight` of a file into the frozen matrix and the trained rows.

    A file holds only one of two tied matrices, and either may be missing. The missing one is filled with its own
    current values here, because the rows are shared and are loaded through the other one.
    """
    assert isinstance(module, _WithRows)
    weight = state.pop(f"{prefix}weight", None)
    if weight is None and module._is_shared:
        weight = module.weight.index_copy(0, module.ids, module.rows.detach().to(module.weight.dtype))
    if weight is not None:  # otherwise strict loading reports the missing name
        state[f"{prefix}base.weight"], state[f"{prefix}rows"] = weight, weight[module.ids]
