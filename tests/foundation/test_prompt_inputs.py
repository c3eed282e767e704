from __future__ import annotations

import pytest
import torch

from hlrp.foundation.backends import QwenVLChatBackend, SmolLatentHeadBackend, SmolLatentHeadConfig
from hlrp.foundation.backends.qwen3vl.prompts import Prompts
from hlrp.foundation.backends.smolvlm.embedded_model import tiny_smol_processor
from hlrp.foundation.backends.smolvlm.prompts import SmolPromptTokenizer
from hlrp.foundation.prompt_inputs import TokenizedPrompts
from hlrp.latents import LatentSpec

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


# ---- SmolVLM ----


@pytest.fixture(scope="module")
def smol() -> SmolLatentHeadBackend:
    config = SmolLatentHeadConfig(embedded_size="debug", image_size=(32, 32))
    return SmolLatentHeadBackend.build(config, LatentSpec())


def smol_prompts(backend: SmolLatentHeadBackend, *instructions: str, cameras: int = 1) -> TokenizedPrompts:
    return backend.prompt_tokenizer(instructions, num_cameras=cameras, device=CPU)


@pytest.mark.parametrize("cameras", [1, 2])
@pytest.mark.parametrize("system_prompt", ["You are a robot policy.", ""])
def test_a_smolvlm_prompt_is_what_its_processor_makes_of_whole_images(
    smol: SmolLatentHeadBackend, cameras: int, system_prompt: str
) -> None:
    content = [{"type": "image"}] * cameras + [{"type": "text", "text": LONG}]
    messages = [{"role": "user", "content": content}]
    if system_prompt:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system_prompt}]})
    text = smol.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    images = [torch.zeros(3, 32, 32, dtype=torch.uint8)] * cameras
    expected = smol.processor(text=[text], images=[images], return_tensors="pt")
    tokenizer = SmolPromptTokenizer(smol.processor, system_prompt=system_prompt)
    ours = tokenizer([LONG], num_cameras=cameras, device=CPU)
    assert torch.equal(ours.input_ids, expected["input_ids"])
    assert int((ours.input_ids == smol.processor.image_token_id).sum()) == cameras * smol.geometry.tokens_per_image


def test_short_smolvlm_prompts_are_padded_on_the_left(smol: SmolLatentHeadBackend) -> None:
    short, both = smol_prompts(smol, "Open"), smol_prompts(smol, "Open", LONG, "Open")
    length = short.input_ids.shape[1]
    assert (short.is_padded, both.is_padded) == (False, True)
    assert torch.equal(both.input_ids[0, -length:], short.input_ids[0])
    assert torch.equal(both.input_ids[0], both.input_ids[2])
    assert both.mask.sum(1).tolist() == [length, both.input_ids.shape[1], length]


@pytest.mark.parametrize(
    "text", ["<image>", "<end_of_utterance>", "<fake_token_around_image><global-img>", "开门 🤖 é"]
)
def test_whatever_a_user_writes_to_smolvlm_stays_text(smol: SmolLatentHeadBackend, text: str) -> None:
    plain, tricky = smol_prompts(smol, "Open").input_ids[0], smol_prompts(smol, text).input_ids[0]
    special = set(smol.prompt_tokenizer.tokenizer.all_special_ids)
    assert [t for t in tricky.tolist() if t in special] == [t for t in plain.tolist() if t in special]
    assert text in smol.prompt_tokenizer.tokenizer.decode(tricky)


def test_an_empty_instruction_to_smolvlm_is_refused(smol: SmolLatentHeadBackend) -> None:
    with pytest.raises(ValueError, match="non-empty instruction"):
        smol_prompts(smol, " ")


def test_a_smolvlm_template_without_room_for_images_is_refused() -> None:
    processor = tiny_smol_processor()
    processor.chat_template = "{{ messages[0].content[-1].text }}"
    with pytest.raises(ValueError, match="chat template must place the instruction and 2 images"):
        SmolPromptTokenizer(processor, system_prompt="")(["Open"], num_cameras=2, device=CPU)
