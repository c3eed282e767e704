from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hlrp.foundation.backends import QwenVLChatBackend
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.processor_parts import tokenizer_of
from hlrp.latents import LatentSpec
from labelled_batch import with_labels


def stock_generate(backend: QwenVLChatBackend, batch: FoundationBatch) -> Tensor:
    """Codes from transformers' own `generate`, constrained by counting tokens from the prompt's end."""
    prompts, tokens = backend._prompts(batch), backend.tokens
    length = prompts.input_ids.shape[1]

    def allowed(_: int, ids: Tensor) -> list[int]:
        step = len(ids) - length
        form = [[tokens.start], *[list(tokens.codes)] * backend.spec.num_codes, [tokens.end], [tokens.eos]]
        return form[min(step, len(form) - 1)]

    generated = backend.model.generate(
        input_ids=prompts.input_ids,
        attention_mask=prompts.mask.long(),
        mm_token_type_ids=(prompts.input_ids == backend.processor.image_token_id).int(),
        **backend._vision(batch),
        max_new_tokens=backend.spec.num_codes + 3,
        do_sample=False,
        prefix_allowed_tokens_fn=allowed,
        eos_token_id=tokens.eos,
        pad_token_id=backend.processor.tokenizer.pad_token_id,
    )
    answer = generated[:, length:]
    code_of = {token: code for code, token in enumerate(tokens.codes)}
    codes = torch.tensor([[code_of[int(token)] for token in row[1:-2]] for row in answer])
    assert torch.equal(answer, tokens.answer(codes))
    return codes


@pytest.mark.parametrize("cameras", [1, 2])
def test_greedy_codes_equal_constrained_generate_with_prompts_of_different_length(
    shared_backend: QwenVLChatBackend, make_batch: Callable[..., FoundationBatch], cameras: int
) -> None:
    batch = make_batch(cameras=cameras)
    codes = shared_backend.predict(batch).codes
    assert torch.equal(codes, stock_generate(shared_backend, batch))
    assert len(codes.unique()) > 1


def test_greedy_codes_equal_constrained_generate_with_prompts_of_one_length(
    shared_backend: QwenVLChatBackend, batch: FoundationBatch
) -> None:
    batch = replace(batch, instructions=["Open a drawer"] * 3)
    assert torch.equal(shared_backend.predict(batch).codes, stock_generate(shared_backend, batch))


def test_padding_does_not_change_a_sample(shared_backend: QwenVLChatBackend, batch: FoundationBatch) -> None:
    together = shared_backend.predict(batch)
    alone = shared_backend.predict(FoundationBatch(batch.images[:1], batch.instructions[:1]))
    assert torch.equal(together.codes[:1], alone.codes)
    torch.testing.assert_close(together.log_probs[:1], alone.log_probs)


def test_log_probabilities_equal_those_of_the_training_loss(
    shared_backend: QwenVLChatBackend, batch: FoundationBatch
) -> None:
    predicted = shared_backend.predict(batch)
    teacher_forced = shared_backend.loss(with_labels(batch, codes=predicted.codes))
    torch.testing.assert_close(teacher_forced.per_sample, -predicted.log_probs.mean(1))


def test_action_tokens_in_the_instruction_leave_the_answer_valid(shared_backend: QwenVLChatBackend) -> None:
    tricky = ["press <ACTION> <ACT_3> <ACT_3> <ACT_3> <ACT_3> </ACTION>"]
    codes = shared_backend.predict(FoundationBatch(torch.rand(1, 1, 3, 32, 32), tricky)).codes
    assert codes.shape == (1, 4)
    assert bool(((codes >= 0) & (codes < 8)).all())


def test_sampling_follows_its_generator_and_its_temperature(
    shared_backend: QwenVLChatBackend, batch: FoundationBatch
) -> None:
    def sample(seed: int, temperature: float) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return shared_backend.predict(batch, temperature=temperature, generator=generator).codes

    assert torch.equal(sample(0, 5.0), sample(0, 5.0))
    assert not torch.equal(sample(0, 5.0), sample(1, 5.0))
    assert torch.equal(sample(0, 1e-4), shared_backend.predict(batch).codes)


def test_a_temperature_of_zero_is_refused(shared_backend: QwenVLChatBackend, batch: FoundationBatch) -> None:
    with pytest.raises(ValueError, match="temperature must be above 0"):
        shared_backend.predict(batch, temperature=0.0)


def test_sampling_among_the_best_code_alone_is_greedy(
    shared_backend: QwenVLChatBackend, batch: FoundationBatch
) -> None:
    sampled = shared_backend.predict(batch, temperature=50.0, top_k=1)
    assert torch.equal(sampled.codes, shared_backend.predict(batch).codes)
    with pytest.raises(ValueError, match="top_k must be 1 or more"):
        shared_backend.predict(batch, temperature=1.0, top_k=0)


def test_top_k_leaves_the_others_out(shared_backend: QwenVLChatBackend, batch: FoundationBatch) -> None:
    best = shared_backend.loss(batch).logits[:, 0].topk(2).indices
    samples = shared_backend.sample(batch, num_samples=64, temperature=100.0, top_k=2)
    for row, codes in zip(best, samples.codes[:, :, 0], strict=True):
        assert set(codes.tolist()) == set(row.tolist())


def test_many_samples_of_one_prompt_follow_the_models_probabilities(
    shared_backend: QwenVLChatBackend, batch: FoundationBatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    samples = shared_backend.sample(batch, num_samples=600, generator=generator)
    assert samples.codes.shape == samples.log_probs.shape == (3, 600, 4)
    expected = shared_backend.loss(batch).logits[:, 0].softmax(-1)
    found = torch.stack([row.bincount(minlength=8) / 600 for row in samples.codes[:, :, 0]])
    torch.testing.assert_close(found, expected, atol=0.08, rtol=0)
    one = with_labels(batch, codes=samples.codes[:, 5])
    torch.testing.assert_close(shared_backend.loss(one).per_sample, -samples.log_probs[:, 5].mean(1))


def test_a_beam_as_wide_as_the_space_ranks_every_answer(
    make_backend: Callable[..., QwenVLChatBackend], make_batch: Callable[..., FoundationBatch]
) -> None:
    backend = make_backend(spec=LatentSpec(codebook_size=3, code_seq_len=3), scale=4)
    batch = replace(make_batch(), labels=None)
    found = backend.beam_search(batch, beams=100)
    assert found.codes.shape == (3, 27, 3)
    total = found.log_probs.sum(-1)
    torch.testing.assert_close(total.exp().sum(1), torch.ones(3))
    assert bool((total.diff(dim=1) <= 0).all())
    assert all(len(set(map(tuple, rows.tolist()))) == 27 for rows in found.codes)
    narrow = backend.beam_search(batch, beams=1)
    greedy = backend.predict(batch)
    assert torch.equal(narrow.codes[:, 0], greedy.codes)
    torch.testing.assert_close(narrow.log_probs[:, 0], greedy.log_probs)
    assert bool((total[:, 0] >= greedy.log_probs.sum(1) - 1e-5).all())


def test_a_beam_of_no_width_is_refused(shared_backend: QwenVLChatBackend, batch: FoundationBatch) -> None:
    with pytest.raises(ValueError, match="beams must be 1 or more"):
        shared_backend.beam_search(batch, beams=0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_neither_the_tokenizers_padding_side_nor_the_batch_size_changes_a_code(
    make_backend: Callable[..., QwenVLChatBackend], side: str, size: int
) -> None:
    backend = make_backend()
    generator = torch.Generator().manual_seed(2)
    batch = FoundationBatch(
        torch.rand(5, 1, 3, 32, 32, generator=generator), ["open", "Open a drawer", "press it", "a", "Close the window"]
    )
    alone = [backend.predict(FoundationBatch(batch.images[i : i + 1], batch.instructions[i : i + 1])) for i in range(5)]
    tokenizer_of(backend.processor).padding_side = side
    for first in range(0, 5, size):
        part = slice(first, first + size)
        found = backend.predict(FoundationBatch(batch.images[part], batch.instructions[part])).codes
        assert torch.equal(found, torch.cat([one.codes for one in alone[part]]))
