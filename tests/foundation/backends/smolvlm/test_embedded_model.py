from __future__ import annotations

import pytest
from transformers import SmolVLMModel, SmolVLMProcessor

from hlrp.foundation.backends import SmolLatentHeadBackend, SmolLatentHeadConfig
from hlrp.foundation.backends.smolvlm.embedded_model import IMAGE_TOKENS, tiny_smol_tokenizer
from hlrp.latents import LatentSpec


@pytest.mark.parametrize("size", ["debug", "demo"])
def test_the_embedded_model_is_transformers_own(size: str) -> None:
    backend = SmolLatentHeadBackend.build(SmolLatentHeadConfig(embedded_size=size), LatentSpec())
    assert type(backend.model) is SmolVLMModel
    assert type(backend.processor) is SmolVLMProcessor
    assert backend.model.config.vision_config.image_size == 64
    assert backend.processor.image_seq_len == backend.model.image_seq_len == 16


@pytest.mark.parametrize("text", ["Öffne die Schublade!", "打开抽屉", "\x00 🤖\n\t"])
def test_any_text_encodes_and_decodes_back(text: str) -> None:
    tokenizer = tiny_smol_tokenizer()
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_image_tokens_are_special_and_single() -> None:
    tokenizer = tiny_smol_tokenizer()
    assert len(tokenizer("".join(IMAGE_TOKENS))["input_ids"]) == len(IMAGE_TOKENS)
    assert set(IMAGE_TOKENS) <= set(tokenizer.all_special_tokens)


def test_the_tokenizer_is_the_same_every_time() -> None:
    assert tiny_smol_tokenizer().get_vocab() == tiny_smol_tokenizer().get_vocab()


def test_where_a_patch_is_is_as_loud_as_what_it_shows() -> None:
    backend = SmolLatentHeadBackend.build(SmolLatentHeadConfig(), LatentSpec())
    positions = backend.model.vision_model.embeddings.get_submodule("position_embedding").weight
    assert 0.9 < float(positions.std().detach()) < 1.1
