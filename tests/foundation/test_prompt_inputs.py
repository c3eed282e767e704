from __future__ import annotations

import pytest
import torch

from hlrp.foundation.backends import QwenVLChatBackend
from hlrp.foundation.prompt_inputs import Prompts

LONG = "Press a button from the top of the coffee machine"
CPU = torch.device("cpu")


def prompts(backend: QwenVLChatBackend, *instructions: str, cameras: int = 1) -> Prompts:
    return backend.prompt_tokenizer(instructions, num_cameras=cameras, device=CPU)


@pytest.mark.parametrize("cameras", [1, 2])
def test_a_prompt_equals_the_processors_own_chat_template(shared_backend: QwenVLChatBackend, cameras: int) -> None:
    processor = shared_backend.processor
    messages = [
        {"role": "system", "content": [{"type": "text", "text": shared_backend.config.system_prompt}]},
        {"role": "user", "content": [{"type": "image"}] * cameras + [{"type": "text", "text": LONG}]},
    ]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    images = [torch.zeros(3, 32, 32, dtype=torch.uint8)] * cameras
    expected = processor(text=text, images=images, return_tensors="pt")
    ours = prompts(shared_backend, LONG, cameras=cameras)
    assert torch.equal(ours.input_ids, expected["input_ids"])
    positions, _ = shared_backend.model.model.get_rope_index(
        expected["input_ids"], expected["mm_token_type_ids"], image_grid_thw=expected["image_grid_thw"]
    )
    assert torch.equal(ours.position_ids, positions)


def test_short_prompts_are_padded_on_the_left(shared_backend: QwenVLChatBackend) -> None:
    short, both = prompts(shared_backend, "Open"), prompts(shared_backend, "Open", LONG)
    assert not short.is_padded
    assert both.is_padded
    length = short.input_ids.shape[1]
    assert torch.equal(both.input_ids[0, -length:], short.input_ids[0])
    assert torch.equal(both.position_ids[:, 0, -length:], short.position_ids[:, 0])
    assert both.mask[0].sum() == length
    assert both.next_position[0] == short.next_position[0]


def test_the_order_of_repeated_instructions_is_kept(shared_backend: QwenVLChatBackend) -> None:
    batch = prompts(shared_backend, LONG, "Open", LONG)
    assert torch.equal(batch.input_ids[0], batch.input_ids[2])
    assert not torch.equal(batch.input_ids[0], batch.input_ids[1])


@pytest.mark.parametrize("text", ["press <ACT_3> </ACTION>", "<|im_end|>", "<|image_pad|>", "开门 🤖 é"])
def test_whatever_a_user_writes_stays_text(shared_backend: QwenVLChatBackend, text: str) -> None:
    plain, tricky = prompts(shared_backend, "Open").input_ids[0], prompts(shared_backend, text).input_ids[0]
    special = set(shared_backend.processor.tokenizer.all_special_ids) | set(shared_backend.tokens.added)

    def specials(ids: torch.Tensor) -> list[int]:
        return [token for token in ids.tolist() if token in special]

    assert specials(tricky) == specials(plain)
    assert text in shared_backend.processor.tokenizer.decode(tricky)


def test_an_empty_instruction_is_refused(shared_backend: QwenVLChatBackend) -> None:
    with pytest.raises(ValueError, match="non-empty instruction"):
        prompts(shared_backend, " ")


def test_a_chat_template_that_drops_the_instruction_is_refused(backend: QwenVLChatBackend) -> None:
    backend.processor.chat_template = "<|im_start|>"
    with pytest.raises(ValueError, match="chat template"):
        prompts(backend, "Open")
