from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from hlrp.foundation.backends import QwenVLChatBackend, QwenVLChatConfig
from hlrp.foundation.backends.qwen3vl.constrained_decode import with_answer
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.lora import LoRASettings
from hlrp.latents import LatentActions, LatentSpec
from hlrp.training.optimization import parameter_groups
from labelled_batch import codes_of, with_labels

Make = Callable[..., QwenVLChatBackend]


def gradients(backend: QwenVLChatBackend, batch: FoundationBatch) -> list[torch.Tensor]:
    backend.zero_grad()
    backend.loss(batch).loss.backward()
    return [p.grad.clone() for p in backend.parameters() if p.grad is not None]


@pytest.mark.parametrize("loss_over", ["codes", "vocabulary"])
def test_invalid_and_unlabelled_samples_contribute_exactly_nothing(
    make_backend: Make, debug_config: QwenVLChatConfig, batch: FoundationBatch, loss_over: str
) -> None:
    backend = make_backend(replace(debug_config, loss_over=loss_over))
    masked = with_labels(batch, codes=codes_of(batch).clone(), valid=torch.tensor([True, True, False]))
    codes_of(masked)[1, 2] = -1
    result = backend.loss(masked)
    assert result.counted.tolist() == [True, False, False]
    assert result.per_sample[1:].tolist() == [0.0, 0.0]
    assert result.loss == result.per_sample[0]
    other = replace(with_labels(masked, codes=codes_of(masked).clone()), images=masked.images.clone())
    other.images[1:] = 0.5
    codes_of(other)[2] = 0
    for mine, theirs in zip(gradients(backend, masked), gradients(backend, other), strict=True):
        assert torch.equal(mine, theirs)


def test_a_batch_without_any_label_has_zero_loss_and_zero_gradient(
    backend: QwenVLChatBackend, batch: FoundationBatch
) -> None:
    nothing = with_labels(batch, codes=torch.full_like(codes_of(batch), -1))
    assert backend.loss(nothing).loss == 0
    assert all(not bool(gradient.any()) for gradient in gradients(backend, nothing))


def test_the_loss_equals_the_stock_models_label_loss(
    make_backend: Make, debug_config: QwenVLChatConfig, batch: FoundationBatch
) -> None:
    backend = make_backend(replace(debug_config, loss_over="vocabulary"))
    prompts, answer = backend._prompts(batch), backend.tokens.answer(codes_of(batch))
    ids, _, mask = with_answer(prompts, answer)
    assert mask is not None
    output = backend.model(
        input_ids=ids,
        attention_mask=mask.long(),
        mm_token_type_ids=(ids == backend.processor.image_token_id).int(),
        labels=F.pad(answer, (prompts.input_ids.shape[1], 0), value=-100),
        **backend._vision(batch),
    )
    torch.testing.assert_close(backend.loss(batch).loss, output.loss, atol=1e-5, rtol=1e-5)


def test_a_slot_sees_the_codes_before_it_and_none_after(
    shared_backend: QwenVLChatBackend, batch: FoundationBatch
) -> None:
    changed = with_labels(batch, codes=codes_of(batch).clone())
    codes_of(changed)[:, 1] = (codes_of(changed)[:, 1] + 1) % 8
    before, after = shared_backend.loss(batch).logits, shared_backend.loss(changed).logits
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.equal(before[:, 2:], after[:, 2:])


def test_labels_do_not_change_a_prediction(shared_backend: QwenVLChatBackend, batch: FoundationBatch) -> None:
    unlabelled = replace(batch, labels=None)
    with_labels, without = shared_backend.predict(batch), shared_backend.predict(unlabelled)
    assert torch.equal(with_labels.log_probs, without.log_probs)


def test_image_and_instruction_both_reach_the_features(
    shared_backend: QwenVLChatBackend, batch: FoundationBatch
) -> None:
    features = shared_backend.features(batch)
    assert features.hidden.shape == (*features.mask.shape, shared_backend.feature_dim)
    assert features.mask[1].all()
    assert not features.mask[0].all()
    assert not torch.equal(features.hidden[0, -1], features.hidden[2, -1])  # same words, another image
    assert bool(torch.isfinite(features.hidden[features.mask]).all())


def test_features_of_loss_and_prediction_are_the_prompts_features(
    shared_backend: QwenVLChatBackend, batch: FoundationBatch
) -> None:
    expected = shared_backend.features(batch)
    for other in (shared_backend.loss(batch).features, shared_backend.predict(batch).features):
        torch.testing.assert_close(other.hidden[other.mask], expected.hidden[expected.mask], atol=1e-5, rtol=1e-5)


def test_a_few_steps_learn_a_batch_by_heart(make_backend: Make, batch: FoundationBatch) -> None:
    backend = make_backend(scale=3).train()
    optimizer = torch.optim.AdamW(backend.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        backend.loss(batch).loss.backward()
        optimizer.step()
    assert torch.equal(backend.predict(batch).codes, codes_of(batch))
    assert backend.training  # predicting leaves the mode as it was


def test_images_are_shifted_in_training_only(
    make_backend: Make, debug_config: QwenVLChatConfig, batch: FoundationBatch
) -> None:
    backend = make_backend(replace(debug_config, random_shift_px=4))
    still = backend._vision(batch)["pixel_values"]
    assert torch.equal(backend._vision(batch)["pixel_values"], still)
    assert not torch.equal(backend.train()._vision(batch)["pixel_values"], still)


def moved_parameters(backend: QwenVLChatBackend, batch: FoundationBatch) -> set[str]:
    """Names of the parameters that five steps with a strong weight decay change; the loss falls meanwhile."""
    backend.train()
    before = {name: value.detach().clone() for name, value in backend.named_parameters()}
    optimizer = torch.optim.AdamW(parameter_groups(backend, weight_decay=0.5), lr=1e-2)
    first = backend.loss(batch).loss.item()
    for _ in range(5):
        optimizer.zero_grad()
        loss = backend.loss(batch).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < first
    return {name for name, value in backend.named_parameters() if not torch.equal(value, before[name])}


def test_everything_learns_by_default(make_backend: Make, batch: FoundationBatch) -> None:
    backend = make_backend(scale=1)
    # With one language layer, what deepstack adds behind it at the image's tokens reaches no answer.
    reached = {name for name, _ in backend.named_parameters() if "deepstack" not in name}
    assert moved_parameters(backend, batch) >= reached


def test_a_frozen_backbone_moves_only_the_action_rows(
    make_backend: Make, debug_config: QwenVLChatConfig, batch: FoundationBatch
) -> None:
    backend = make_backend(replace(debug_config, freeze_backbone=True))
    assert moved_parameters(backend, batch) == {"model.model.language_model.embed_tokens.rows"}  # the head's are tied


def test_a_frozen_vision_tower_moves_all_but_that(
    make_backend: Make, debug_config: QwenVLChatConfig, batch: FoundationBatch
) -> None:
    backend = make_backend(replace(debug_config, freeze_vision_tower=True), scale=1)
    language = {name for name, _ in backend.named_parameters() if ".visual." not in name}
    assert moved_parameters(backend, batch) == language


def test_lora_moves_adapters_and_action_rows_alone(
    make_backend: Make, debug_config: QwenVLChatConfig, batch: FoundationBatch
) -> None:
    backend = make_backend(replace(debug_config, lora=LoRASettings(rank=2)), scale=3)
    moved = moved_parameters(backend, batch)
    assert all("lora_" in name or name.endswith("embed_tokens.rows") for name in moved)
    assert sum("lora_" in name for name in moved) == 2 * 7  # two matrices beside each linear layer
    assert sum("lora_" not in name for name in moved) == 1


def test_adapters_start_as_nothing(make_backend: Make, debug_config: QwenVLChatConfig, batch: FoundationBatch) -> None:
    plain, adapted = make_backend(scale=1), make_backend(replace(debug_config, lora=LoRASettings(rank=2)), scale=1)
    torch.testing.assert_close(adapted.loss(batch).logits, plain.loss(batch).logits)


def test_adapters_that_fit_nowhere_are_refused(make_backend: Make, debug_config: QwenVLChatConfig) -> None:
    with pytest.raises(ValueError, match="no linear layer of this model is called"):
        make_backend(replace(debug_config, lora=LoRASettings(rank=2, target_modules=("query",))))
    with pytest.raises(ValueError, match="choose one of them"):
        replace(debug_config, freeze_backbone=True, lora=LoRASettings(rank=2))


def test_freezing_changes_no_number(make_backend: Make, debug_config: QwenVLChatConfig, batch: FoundationBatch) -> None:
    free, frozen = (make_backend(replace(debug_config, freeze_backbone=flag), scale=1) for flag in (False, True))
    torch.testing.assert_close(frozen.loss(batch).logits, free.loss(batch).logits)


def test_gradient_checkpointing_changes_no_gradient(
    make_backend: Make, debug_config: QwenVLChatConfig, batch: FoundationBatch
) -> None:
    plain, checkpointed = (
        make_backend(replace(debug_config, gradient_checkpointing=flag)).train() for flag in (False, True)
    )
    for mine, theirs in zip(gradients(plain, batch), gradients(checkpointed, batch), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_local_hub_folder_gets_the_action_tokens_it_lacks(
    make_backend: Make, debug_config: QwenVLChatConfig, batch: FoundationBatch, tmp_path: Path
) -> None:
    source = make_backend(spec=LatentSpec(codebook_size=4))
    source.model.save_pretrained(tmp_path)
    source.processor.save_pretrained(tmp_path)
    config = replace(debug_config, model_name=str(tmp_path))
    backend = QwenVLChatBackend.build(config, LatentSpec(codebook_size=8))
    assert backend.model.training, "in evaluation mode, gradient checkpointing has no effect"
    assert backend.tokens.codes[:4] == source.tokens.codes
    known = source.model.get_input_embeddings().weight
    assert torch.equal(backend.model.get_input_embeddings().weight[: len(known)], known)
    assert backend.model.lm_head.weight is backend.model.get_input_embeddings().weight
    assert bool(torch.isfinite(backend.loss(batch).loss))


def test_longer_labels_flatten_transitions(make_backend: Make, debug_config: QwenVLChatConfig) -> None:
    backend = make_backend(debug_config, spec=LatentSpec(code_seq_len=2, num_frames=4))
    batch = FoundationBatch(
        torch.rand(1, 1, 3, 32, 32), ["open"], LatentActions.of_codes(torch.zeros(1, 6, dtype=torch.long))
    )
    assert backend.loss(batch).logits.shape == (1, 6, 8)
    assert backend.predict(batch).codes.shape == (1, 6)


def test_missing_or_misshapen_codes_are_refused(shared_backend: QwenVLChatBackend, batch: FoundationBatch) -> None:
    with pytest.raises(ValueError, match="no codes to learn from"):
        shared_backend.loss(replace(batch, labels=None))
    with pytest.raises(ValueError, match=r"codes must be \(3, 4\)"):
        shared_backend.loss(with_labels(batch, codes=torch.zeros(3, 5, dtype=torch.long)))


@pytest.mark.parametrize(
    "wrong", [{"dtype": "int8"}, {"loss_over": "words"}, {"random_shift_px": -1}, {"embedded_size": "huge"}]
)
def test_a_wrong_setting_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        QwenVLChatConfig(**wrong)


def test_a_short_training_run_in_bfloat16_stays_finite(
    make_backend: Make, debug_config: QwenVLChatConfig, batch: FoundationBatch
) -> None:
    backend = make_backend(replace(debug_config, dtype="bfloat16"))
    assert bool(torch.isfinite(backend.loss(batch).loss))
    assert backend.predict(batch).codes.shape == (3, 4)
