from __future__ import annotations

import pytest
import torch

from hlrp.foundation.backends.embedded import tiny_tokenizer
from hlrp.foundation.backends.qwen3vl.action_tokens import ActionTokens, add_action_tokens


def test_the_answer_text_tokenizes_to_exactly_the_answer_ids() -> None:
    tokenizer, tokens = tiny_tokenizer(), ActionTokens()
    ids = add_action_tokens(tokenizer, tokens, 8)
    text = tokens.format([3, 1])
    assert text == "<ACTION> <ACT_3> <ACT_1> </ACTION>"
    answer = ids.answer(torch.tensor([[3, 1]]))[0].tolist()
    assert answer == [ids.start, ids.codes[3], ids.codes[1], ids.end, ids.eos]
    assert tokenizer(text + "<|im_end|>")["input_ids"] == answer


def test_adding_the_tokens_twice_changes_nothing() -> None:
    tokenizer = tiny_tokenizer()
    first = add_action_tokens(tokenizer, ActionTokens(), 8)
    size = len(tokenizer)
    assert add_action_tokens(tokenizer, ActionTokens(), 8) == first
    assert len(tokenizer) == size


def test_plain_text_cannot_become_an_action_token() -> None:
    tokenizer = tiny_tokenizer()
    ids = add_action_tokens(tokenizer, ActionTokens(), 8)
    written = tokenizer("press <ACT_3> <ACTION>", split_special_tokens=True)["input_ids"]
    assert not set(written) & set(ids.added)
    assert tokenizer.decode(written) == "press <ACT_3> <ACTION>"


def test_a_format_without_the_code_number_is_refused() -> None:
    with pytest.raises(ValueError, match="must contain"):
        ActionTokens(action_token_fmt="<ACT>")
