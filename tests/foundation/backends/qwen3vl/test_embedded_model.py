from __future__ import annotations

import pytest
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor

from hlrp.foundation.backends import QwenVLChatBackend
from hlrp.foundation.backends.embedded import embedded_size, tiny_tokenizer


def test_the_embedded_model_is_transformers_own(shared_backend: QwenVLChatBackend) -> None:
    assert type(shared_backend.model) is Qwen3VLForConditionalGeneration
    assert type(shared_backend.processor) is Qwen3VLProcessor


def test_common_instructions_take_few_tokens() -> None:
    tokenizer = tiny_tokenizer()
    assert len(tokenizer.tokenize("Press a button from the top")) == 6
    assert len(tokenizer) < 1100


@pytest.mark.parametrize("text", ["Öffne die Schublade!", "打开抽屉", "\x00 🤖\n\t"])
def test_any_text_encodes_and_decodes_back(text: str) -> None:
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_tokenizer_is_the_same_every_time() -> None:
    assert tiny_tokenizer().get_vocab() == tiny_tokenizer().get_vocab()


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of debug, demo"):
        embedded_size("huge")
