"""Action tokens: latent codes as tokens of a language model's vocabulary.

An answer reads `<ACTION> <ACT_3> <ACT_1> </ACTION>`; its token ids are exactly [start, code * q, end, eos]. The
tokens absorb the spaces around them, so that tokenizing this text gives the same ids as building them directly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import AddedToken, PreTrainedTokenizerBase

from hlrp.foundation.backends.qwen3vl.config import ActionTokens
from hlrp.foundation.processor_parts import token_ids


@dataclass(frozen=True)
class ActionTokenIds:
    """Token ids of the action tokens in one tokenizer."""

    start: int
    end: int
    eos: int
    codes: tuple[int, ...]
    """Token id of every codebook entry, length k."""

    @property
    def added(self) -> tuple[int, ...]:
        """Ids that are new to the language model: start, end and the codes, but not eos, which is pretrained."""
        return (self.start, self.end, *self.codes)

    def code_ids(self, codes: Int[Tensor, "b q"]) -> Int[Tensor, "b q"]:
        """Token ids of `codes`, which must lie in [0, k)."""
        return torch.tensor(self.codes, device=codes.device)[codes]

    def answer(self, codes: Int[Tensor, "b q"]) -> Int[Tensor, "b q+3"]:
        """The whole answer [start, code * q, end, eos] for `codes` in [0, k)."""
        ids = self.code_ids(codes)
        start, end, eos = (torch.full_like(ids[:, :1], token) for token in (self.start, self.end, self.eos))
        return torch.cat([start, ids, end, eos], dim=1)


def add_action_tokens(tokenizer: PreTrainedTokenizerBase, tokens: ActionTokens, codebook_size: int) -> ActionTokenIds:
    """Add the action tokens that `tokenizer` lacks, in place, and return the ids of all action tokens.

    Raises:
        ValueError: If the tokenizer has no end-of-sequence token, splits an action token, or two tokens are the same.
    """
    eos = tokenizer.eos_token_id
    if not isinstance(eos, int):
        raise ValueError("the tokenizer has no end-of-sequence token; use a chat model's tokenizer")
    texts = [tokens.action_start_token, tokens.action_end_token, *map(tokens.spell, range(codebook_size))]
    known = tokenizer.get_vocab()
    # lstrip and rstrip absorb the spaces between the tokens of an answer.
    new = [
        AddedToken(text, special=True, lstrip=True, rstrip=True, normalized=False)
        for text in texts
        if text not in known
    ]
    tokenizer.add_tokens(new, special_tokens=True)
    ids = [token_ids(tokenizer, text) for text in texts]
    for text, pieces in zip(texts, ids, strict=True):
        if len(pieces) != 1:
            raise ValueError(
                f"the tokenizer splits the action token {text!r} into {len(pieces)} tokens; "
                "choose another action_token_fmt"
            )
    start, end, *codes = (pieces[0] for pieces in ids)
    if len({start, end, eos, *codes}) != codebook_size + 3:
        raise ValueError(f"the action tokens {texts} are not distinct; choose another action_token_fmt")
    return ActionTokenIds(start=start, end=end, eos=eos, codes=tuple(codes))
