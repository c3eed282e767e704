from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import SmolVLMForConditionalGeneration

from hlrp.foundation.backends import BackendConfig, SmolLatentHeadBackend, SmolLatentHeadConfig
from hlrp.foundation.backends.choice import most_likely_labels
from hlrp.foundation.backends.embedded import embedded_size
from hlrp.foundation.backends.qwen3vl.embedded_model import tiny_processor
from hlrp.foundation.backends.smolvlm.embedded_model import tiny_smol_processor, tiny_smolvlm_config
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.checkpoint import load_foundation
from hlrp.foundation.lora import LoRASettings
from hlrp.latents import LatentActions, LatentSpec
from hlrp.report.saving import save_foundation
from hlrp.training.optimization import learn_in_float32, parameter_groups
from labelled_batch import codes_of, vectors_of, with_labels

DEBUG = SmolLatentHeadConfig(embedded_size="debug", image_size=(32, 32), random_shift_px=0)
WITH_VECTORS = replace(DEBUG, vector_loss_weight=0.5)
SPEC = LatentSpec(code_dim=3)
both_heads = pytest.mark.parametrize("head", ["query", "pooled"])
with_and_without_vectors = pytest.mark.parametrize("weight", [0.0, 0.5])

MakeBatch = Callable[..., FoundationBatch]


def build(config: SmolLatentHeadConfig = DEBUG, spec: LatentSpec = SPEC, *, scale: float = 6) -> SmolLatentHeadBackend:
    """A seeded backend; the language model's matrices are scaled up so that samples differ visibly."""
    torch.manual_seed(0)
    backend = SmolLatentHeadBackend.build(config, spec).eval()
    with torch.no_grad():
        for parameter in backend.model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
    return backend


@pytest.fixture(scope="module")
def shared() -> SmolLatentHeadBackend:
    """One backend for tests that only read it."""
    return build()


@pytest.fixture
def labelled(batch: FoundationBatch) -> FoundationBatch:
    """The shared batch with latent vectors."""
    return with_labels(batch, vectors=torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(2)))


def gradients(backend: SmolLatentHeadBackend, batch: FoundationBatch) -> list[torch.Tensor]:
    backend.zero_grad()
    backend.loss(batch).loss.backward()
    return [p.grad.clone() for p in backend.parameters() if p.grad is not None]


def train(backend: SmolLatentHeadBackend, batch: FoundationBatch, *, steps: int, lr: float = 1e-2) -> list[float]:
    """Losses of a few steps with a strong weight decay on one batch."""
    optimizer = torch.optim.AdamW(parameter_groups(backend.train(), weight_decay=0.5), lr=lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = backend.loss(batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def moved_parameters(backend: SmolLatentHeadBackend, batch: FoundationBatch) -> set[str]:
    """Names of the parameters that training changes; the loss falls meanwhile."""
    before = {name: value.detach().clone() for name, value in backend.named_parameters()}
    losses = train(backend, batch, steps=5)
    assert losses[-1] < losses[0]
    return {name for name, value in backend.named_parameters() if not torch.equal(value, before[name])}


# ---- the stock model ----


@pytest.mark.parametrize("cameras", [1, 2])
def test_features_equal_the_stock_models_on_its_processors_output(
    shared: SmolLatentHeadBackend, make_batch: MakeBatch, cameras: int
) -> None:
    batch = make_batch(cameras=cameras)
    batch = replace(batch, images=(batch.images * 255).round() / 255)
    texts = []
    for instruction in batch.instructions:
        content = [{"type": "image"}] * cameras + [{"type": "text", "text": instruction}]
        system = {"role": "system", "content": [{"type": "text", "text": shared.config.system_prompt}]}
        messages = [system, {"role": "user", "content": content}]
        texts.append(shared.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    inputs = shared.processor(
        text=texts,
        images=[list((views * 255).round().to(torch.uint8)) for views in batch.images],
        padding=True,
        return_tensors="pt",
    )
    expected = shared.model(**inputs).last_hidden_state
    ours = shared.features(batch)
    assert torch.equal(ours.mask.long(), inputs["attention_mask"])
    torch.testing.assert_close(ours.hidden[ours.mask], expected[ours.mask], atol=1e-4, rtol=1e-4)


def test_an_evenly_grey_image_is_seen(shared: SmolLatentHeadBackend, batch: FoundationBatch) -> None:
    images = batch.images.clone()
    images[1] = 0.5  # zero once normalized, which the stock model takes for a place without an image
    grey, own = shared.features(replace(batch, images=images)), shared.features(batch)
    torch.testing.assert_close(grey.hidden[2], own.hidden[2])
    assert not torch.allclose(grey.hidden[1], own.hidden[1])


def save_hub_folder(folder: Path, *, tied: bool) -> SmolVLMForConditionalGeneration:
    """What a hub repository holds: a model with an output head, and its processor with crops switched on."""
    processor = tiny_smol_processor()
    config = tiny_smolvlm_config(embedded_size("debug"), processor, (64, 64))
    config.tie_word_embeddings = tied
    model = SmolVLMForConditionalGeneration(config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


@pytest.mark.parametrize("tied", [False, True])
def test_a_local_hub_folder_loads_without_its_output_head(batch: FoundationBatch, tmp_path: Path, tied: bool) -> None:
    source = save_hub_folder(tmp_path / "hub", tied=tied)
    backend = build(replace(DEBUG, model_name=str(tmp_path / "hub")), scale=1)
    untouched = SmolLatentHeadBackend.build(replace(DEBUG, model_name=str(tmp_path / "hub")), SPEC)
    assert untouched.model.training, "in evaluation mode, gradient checkpointing has no effect"
    for name, value in source.model.state_dict().items():
        assert torch.equal(backend.model.state_dict()[name], value), name
    assert backend.processor.image_seq_len == 4  # of 32 x 32 pixels; the hub model's 64 x 64 have 16
    assert bool(torch.isfinite(backend.loss(batch).loss))
    saved = load_file(save_foundation(backend, tmp_path / "model", laq_fingerprint="abc") / "model.safetensors")
    kept = sum(value.numel() for value in source.model.state_dict().values())
    head = sum(value.numel() for value in backend.head.state_dict().values())
    assert sum(value.numel() for value in saved.values()) == kept + head + 1  # and the counter of draws


def test_a_model_of_another_family_is_refused(tmp_path: Path) -> None:
    tiny_processor(embedded_size("debug"), (32, 32)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected a SmolVLMProcessor"):
        build(replace(DEBUG, model_name=str(tmp_path)))


# ---- loss ----


@both_heads
@with_and_without_vectors
def test_invalid_and_unlabelled_samples_contribute_exactly_nothing(
    labelled: FoundationBatch, head: str, weight: float
) -> None:
    backend = build(replace(DEBUG, head=head, vector_loss_weight=weight))
    masked = with_labels(labelled, codes=codes_of(labelled).clone(), valid=torch.tensor([True, True, False]))
    codes_of(masked)[1, 2] = -1
    result = backend.loss(masked)
    assert result.counted.tolist() == [True, False, False]
    assert result.per_sample[1:].tolist() == [0.0, 0.0]
    assert result.loss == result.per_sample[0]
    other = with_labels(masked, codes=codes_of(masked).clone(), vectors=vectors_of(labelled).clone())
    other = replace(other, images=masked.images.clone())
    other.images[1:] = 0.5
    codes_of(other)[2] = 0
    vectors_of(other)[1:] = torch.nan
    for mine, theirs in zip(gradients(backend, masked), gradients(backend, other), strict=True):
        assert torch.equal(mine, theirs)


@with_and_without_vectors
def test_a_batch_without_any_label_has_zero_loss_and_zero_gradient(labelled: FoundationBatch, weight: float) -> None:
    backend = build(replace(DEBUG, vector_loss_weight=weight)).train()
    nothing = with_labels(labelled, codes=torch.full_like(codes_of(labelled), -1))
    assert backend.loss(nothing).loss == 0
    assert all(not bool(gradient.any()) for gradient in gradients(backend, nothing))


def test_the_loss_is_the_mean_cross_entropy_of_the_slots(shared: SmolLatentHeadBackend, batch: FoundationBatch) -> None:
    result = shared.loss(batch)
    log_p = result.logits.log_softmax(-1).gather(-1, codes_of(batch)[..., None])
    torch.testing.assert_close(result.loss, -log_p.mean())
    torch.testing.assert_close(result.accuracy, (result.logits.argmax(-1) == codes_of(batch)).float().mean(0))
    assert result.terms == {}


def test_parts_of_the_loss_add_up_with_their_weight(labelled: FoundationBatch) -> None:
    result = build(WITH_VECTORS).loss(labelled)
    torch.testing.assert_close(result.loss, result.terms["codes"] + 0.5 * result.terms["vectors"])
    assert result.loss > result.terms["codes"]


def test_missing_or_misshapen_labels_are_refused(shared: SmolLatentHeadBackend, labelled: FoundationBatch) -> None:
    with pytest.raises(ValueError, match="no codes to learn from"):
        shared.loss(replace(labelled, labels=None))
    with pytest.raises(ValueError, match=r"codes must be \(3, 4\)"):
        shared.loss(with_labels(labelled, codes=torch.zeros(3, 5, dtype=torch.long), vectors=None))
    with_vectors = build(WITH_VECTORS)
    with pytest.raises(ValueError, match="no latent vectors"):
        with_vectors.loss(with_labels(labelled, vectors=None))
    with pytest.raises(ValueError, match=r"vectors must be \(3, 4, 3\)"):
        with_vectors.loss(with_labels(labelled, vectors=torch.zeros(3, 4, 5)))


# ---- predictions ----


@pytest.mark.parametrize("config", [DEBUG, WITH_VECTORS])
def test_labels_do_not_change_a_prediction(labelled: FoundationBatch, config: SmolLatentHeadConfig) -> None:
    backend = build(config)
    mine = backend.predict(labelled)
    theirs = backend.predict(replace(labelled, labels=None))
    assert torch.equal(mine.log_probs, theirs.log_probs)
    assert (mine.vectors is None) == (config is DEBUG)
    if mine.vectors is not None:
        assert theirs.vectors is not None
        assert torch.equal(mine.vectors, theirs.vectors)


@both_heads
def test_image_and_instruction_both_reach_the_prediction(batch: FoundationBatch, head: str) -> None:
    backend = build(replace(DEBUG, head=head))
    own = backend.loss(batch).logits
    assert not torch.allclose(own[0], own[2], atol=1e-3)  # same words, another image
    other = replace(batch, instructions=["Close the door", *batch.instructions[1:]])
    assert not torch.allclose(backend.loss(other).logits[0], own[0], atol=1e-3)
    torch.testing.assert_close(backend.loss(other).logits[1:], own[1:], atol=1e-4, rtol=1e-4)


def test_both_cameras_and_their_order_reach_the_prediction(
    shared: SmolLatentHeadBackend, make_batch: MakeBatch
) -> None:
    batch = make_batch(cameras=2)
    features = shared.features(batch)
    assert features.mask.shape[1] > shared.features(make_batch()).mask.shape[1]
    swapped = replace(batch, images=batch.images.flip(1))
    assert not torch.allclose(shared.loss(swapped).logits, shared.loss(batch).logits, atol=1e-3)


@pytest.mark.parametrize("config", [DEBUG, replace(WITH_VECTORS, head="pooled"), WITH_VECTORS])
def test_padding_does_not_change_a_samples_result(batch: FoundationBatch, config: SmolLatentHeadConfig) -> None:
    backend = build(config)
    together = backend.predict(batch)
    alone = backend.predict(FoundationBatch(batch.images[:1], batch.instructions[:1]))
    assert not together.features.mask[0].all()
    assert alone.features.mask.all()
    hidden = together.features.hidden[0][together.features.mask[0]]
    torch.testing.assert_close(hidden, alone.features.hidden[0], atol=1e-4, rtol=1e-4)
    assert torch.equal(together.codes[0], alone.codes[0])
    torch.testing.assert_close(together.log_probs[0], alone.log_probs[0], atol=1e-4, rtol=1e-4)
    if together.vectors is not None and alone.vectors is not None:
        torch.testing.assert_close(together.vectors[0], alone.vectors[0], atol=1e-4, rtol=1e-4)


def test_features_of_loss_and_prediction_are_the_prompts_features(
    shared: SmolLatentHeadBackend, batch: FoundationBatch
) -> None:
    expected = shared.features(batch)
    assert expected.hidden.shape == (*expected.mask.shape, shared.feature_dim)
    for other in (shared.loss(batch).features, shared.predict(batch).features):
        assert torch.equal(other.hidden, expected.hidden)


def test_the_likeliest_codes_are_predicted(shared: SmolLatentHeadBackend, batch: FoundationBatch) -> None:
    prediction, log_p = shared.predict(batch), shared.loss(batch).logits.log_softmax(-1)
    assert torch.equal(prediction.codes, log_p.argmax(-1))
    torch.testing.assert_close(prediction.log_probs, log_p.amax(-1))
    assert torch.equal(shared.predict(batch, temperature=1.0, top_k=1).codes, prediction.codes)


def log_probs_of(candidates: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
    """Log-probability of every code of the candidates (b m s), read off log_p (b s k) one by one."""
    b, _, s = candidates.shape
    return log_p[torch.arange(b)[:, None, None], torch.arange(s), candidates]


def test_sampling_follows_the_generator_and_the_distribution(
    shared: SmolLatentHeadBackend, batch: FoundationBatch
) -> None:
    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return shared.sample(batch, num_samples=4000, temperature=2.0, generator=generator).codes

    codes = draw(0)
    assert codes.shape == (3, 4000, 4)
    assert torch.equal(codes, draw(0))
    assert not torch.equal(codes, draw(1))
    shares = torch.nn.functional.one_hot(codes, 8).float().mean(1)
    expected = (shared.loss(batch).logits.log_softmax(-1) / 2).softmax(-1)
    torch.testing.assert_close(shares, expected, atol=0.04, rtol=0)


def test_samples_stay_among_the_top_k_and_report_probabilities_at_temperature_1(
    shared: SmolLatentHeadBackend, batch: FoundationBatch
) -> None:
    log_p = shared.loss(batch).logits.log_softmax(-1)
    drawn = shared.sample(batch, num_samples=50, temperature=3.0, top_k=2)
    second = log_p.topk(2).values[..., -1]
    assert bool((drawn.log_probs >= second[:, None] - 1e-6).all())
    torch.testing.assert_close(drawn.log_probs, log_probs_of(drawn.codes, log_p))


@pytest.mark.parametrize("beams", [1, 5, 40, 1000])
def test_beam_search_finds_exactly_the_most_likely_labels(batch: FoundationBatch, beams: int) -> None:
    backend = build(spec=LatentSpec(codebook_size=3, code_seq_len=4))
    codes = codes_of(batch)
    log_p = backend.loss(with_labels(batch, codes=codes % 3)).logits.log_softmax(-1)
    every = torch.tensor(list(itertools.product(range(3), repeat=4)))  # 81 labels
    scores = log_p[:, torch.arange(4), every].sum(-1)
    found = backend.beam_search(batch, beams=beams)
    assert found.codes.shape == (3, min(beams, 81), 4)
    torch.testing.assert_close(found.log_probs.sum(-1), scores.sort(1, descending=True).values[:, :beams])
    torch.testing.assert_close(found.log_probs, log_probs_of(found.codes, log_p))
    assert torch.equal(found.codes[:, 0], backend.predict(batch).codes)


def test_no_beam_at_all_is_refused(shared: SmolLatentHeadBackend, batch: FoundationBatch) -> None:
    with pytest.raises(ValueError, match="beams must be 1 or more"):
        shared.beam_search(batch, beams=0)


def test_the_most_likely_labels_are_all_different() -> None:
    labels = most_likely_labels(torch.zeros(1, 3, 2), 8)  # all equally likely
    assert len({tuple(label) for label in labels[0].tolist()}) == 8


@pytest.mark.parametrize(
    ("spec", "slots"),
    [(LatentSpec(codebook_size=16, code_seq_len=2, num_frames=4), 6), (LatentSpec(codebook_size=3, code_seq_len=1), 1)],
)
def test_any_number_of_transitions_and_codes_fits(spec: LatentSpec, slots: int) -> None:
    backend = build(replace(DEBUG, vector_loss_weight=1.0), spec=spec)
    images, codes = torch.rand(2, 1, 3, 32, 32), torch.full((2, slots), spec.codebook_size - 1)
    batch = FoundationBatch(images, ["open", "close"], LatentActions.of_codes(codes))
    batch = with_labels(batch, vectors=torch.randn(2, slots, spec.code_dim))
    assert backend.loss(batch).logits.shape == (2, slots, spec.codebook_size)
    prediction = backend.predict(batch)
    assert prediction.codes.shape == (2, slots)
    assert prediction.vectors is not None
    assert prediction.vectors.shape == (2, slots, spec.code_dim)
    assert backend.sample(batch, num_samples=3).codes.shape == (2, 3, slots)


# ---- learning ----


@both_heads
@pytest.mark.parametrize("cameras", [1, 2])
def test_a_few_steps_learn_a_batch_by_heart(make_batch: MakeBatch, head: str, cameras: int) -> None:
    batch, backend = make_batch(cameras=cameras), build(replace(DEBUG, head=head), scale=3)
    train(backend, batch, steps=40)
    assert torch.equal(backend.predict(batch).codes, codes_of(batch))
    assert backend.training  # predicting leaves the mode as it was


def test_a_batchs_vectors_are_learned_by_heart(labelled: FoundationBatch) -> None:
    far = with_labels(labelled, vectors=100 + 5 * vectors_of(labelled))
    backend = build(replace(WITH_VECTORS, flow_steps=8), scale=3)
    many = FoundationBatch(
        images=far.images.repeat(8, 1, 1, 1, 1),
        instructions=far.instructions * 8,
        labels=LatentActions.joined([far.labels] * 8) if far.labels else None,
    )
    train(backend, many, steps=150, lr=3e-3)
    predicted = backend.predict(far).vectors
    assert predicted is not None
    assert float((predicted - vectors_of(far)).square().mean() / vectors_of(far).var(0).mean()) < 0.2


def test_sampled_vectors_start_from_the_generators_noise(labelled: FoundationBatch) -> None:
    backend = build(WITH_VECTORS)

    def vectors(seed: int) -> torch.Tensor:
        drawn = backend.predict(labelled, temperature=1.0, generator=torch.Generator().manual_seed(seed)).vectors
        assert drawn is not None
        return drawn

    assert torch.equal(vectors(0), vectors(0))
    assert not torch.equal(vectors(0), vectors(1))


def test_the_continuous_head_leaves_the_code_samples_as_they_are(batch: FoundationBatch) -> None:
    without, with_head = (
        build(config).predict(batch, temperature=1.0, generator=torch.Generator().manual_seed(3))
        for config in (DEBUG, WITH_VECTORS)
    )
    assert torch.equal(without.codes, with_head.codes)


def test_images_are_shifted_in_training_only(batch: FoundationBatch) -> None:
    backend = build(replace(DEBUG, random_shift_px=4))
    still = backend.features(batch).hidden
    assert torch.equal(backend.features(batch).hidden, still)
    backend.train()
    first, second = backend.features(batch).hidden, backend.features(batch).hidden
    assert not torch.equal(first, still)
    assert not torch.equal(first, second)
    assert backend.draws == 2


def test_a_resumed_run_goes_on_exactly(labelled: FoundationBatch, tmp_path: Path) -> None:
    backend = build(replace(WITH_VECTORS, random_shift_px=4), scale=1)
    train(backend, labelled, steps=3)
    folder = save_foundation(backend, tmp_path / "model", laq_fingerprint="abc")
    resumed = load_foundation(folder).backend
    assert isinstance(resumed, SmolLatentHeadBackend)
    torch.rand(7)  # whatever else drew random numbers meanwhile
    assert train(backend, labelled, steps=3) == train(resumed, labelled, steps=3)


# ---- what learns ----


def names(backend: SmolLatentHeadBackend, *without: str) -> set[str]:
    return {name for name, _ in backend.named_parameters() if not name.startswith(without)}


def test_everything_learns_by_default(labelled: FoundationBatch) -> None:
    backend = build(WITH_VECTORS, scale=1)
    assert moved_parameters(backend, labelled) == names(backend)


@both_heads
def test_a_frozen_backbone_moves_the_heads_alone(labelled: FoundationBatch, head: str) -> None:
    backend = build(replace(WITH_VECTORS, head=head, freeze_backbone=True))
    assert moved_parameters(backend, labelled) == names(backend, "model.")


def test_a_frozen_vision_tower_moves_all_but_that_and_its_projection(batch: FoundationBatch) -> None:
    backend = build(replace(DEBUG, freeze_vision_tower=True), scale=1)
    assert moved_parameters(backend, batch) == names(backend, "model.vision_model.", "model.connector.")


def test_lora_moves_adapters_and_the_head_alone(batch: FoundationBatch) -> None:
    backend = build(replace(DEBUG, lora=LoRASettings(rank=2)), scale=3)
    adapters = {name for name in names(backend) if "lora_" in name}
    assert len(adapters) == 2 * 7  # two matrices beside each linear layer
    assert moved_parameters(backend, batch) == adapters | names(backend, "model.")


def test_merging_adapters_changes_no_number_and_leaves_none(batch: FoundationBatch, tmp_path: Path) -> None:
    backend = build(replace(DEBUG, lora=LoRASettings(rank=2)), scale=3)
    untrained = backend.predict(batch).log_probs
    train(backend, batch, steps=5)
    expected = backend.eval().loss(batch).logits
    assert not torch.allclose(backend.predict(batch).log_probs, untrained)
    backend.merge_adapters()
    torch.testing.assert_close(backend.loss(batch).logits, expected, atol=1e-4, rtol=1e-4)
    assert not backend.config.lora.is_on
    folder = save_foundation(backend, tmp_path / "model", laq_fingerprint="abc")
    assert not any("lora" in name for name in load_file(folder / "model.safetensors"))
    assert torch.equal(load_foundation(folder).backend.predict(batch).log_probs, backend.predict(batch).log_probs)


@pytest.mark.parametrize(
    "change", [{"freeze_backbone": True}, {"freeze_vision_tower": True}, {"lora": LoRASettings(rank=2)}]
)
def test_freezing_changes_no_number(batch: FoundationBatch, change: dict) -> None:
    free, frozen = build(scale=1).state_dict(), build(replace(DEBUG, **change), scale=1)
    own = {name.replace(".base_layer", ""): value for name, value in frozen.state_dict().items() if "lora" not in name}
    assert own.keys() == free.keys()
    plain = build(scale=1)
    plain.load_state_dict(own)
    torch.testing.assert_close(frozen.loss(batch).logits, plain.loss(batch).logits)


def test_gradient_checkpointing_changes_no_gradient(labelled: FoundationBatch) -> None:
    plain, checkpointed = (
        build(replace(WITH_VECTORS, gradient_checkpointing=flag), scale=2).train() for flag in (False, True)
    )
    assert checkpointed.model.is_gradient_checkpointing
    for mine, theirs in zip(gradients(plain, labelled), gradients(checkpointed, labelled), strict=True):
        torch.testing.assert_close(mine, theirs)


# ---- layers, types and files ----


def test_the_first_layers_alone_are_kept(batch: FoundationBatch, tmp_path: Path) -> None:
    config = replace(DEBUG, embedded_size="demo")
    whole, cut = build(config, scale=1), build(replace(config, num_vlm_layers=1), scale=1)
    assert [len(backend.model.text_model.layers) for backend in (whole, cut)] == [2, 1]
    whole.model.text_model.layers = whole.model.text_model.layers[:1]
    whole.model.text_model.config.num_hidden_layers = 1
    cut.model.load_state_dict(whole.model.state_dict())
    assert torch.equal(cut.features(batch).hidden, whole.features(batch).hidden)
    loaded = load_foundation(save_foundation(cut, tmp_path / "model", laq_fingerprint="abc")).backend
    assert torch.equal(loaded.features(batch).hidden, cut.features(batch).hidden)
    with pytest.raises(ValueError, match="num_vlm_layers must be at most 2"):
        build(replace(config, num_vlm_layers=3))


@pytest.mark.parametrize(
    "config",
    [DEBUG, replace(WITH_VECTORS, head="pooled", head_layers=2), replace(DEBUG, freeze_backbone=True, head_layers=2)],
)
def test_a_loaded_model_predicts_bit_for_bit_the_same(
    labelled: FoundationBatch, tmp_path: Path, config: SmolLatentHeadConfig
) -> None:
    backend = build(config)
    train(backend, labelled, steps=1)
    folder = save_foundation(backend.eval(), tmp_path / "model", laq_fingerprint="abc")
    loaded = load_foundation(folder).backend
    assert type(loaded) is SmolLatentHeadBackend
    assert loaded.config_dict() == backend.config_dict()
    mine, theirs = backend.predict(labelled), loaded.predict(labelled)
    assert torch.equal(mine.log_probs, theirs.log_probs)
    assert torch.equal(mine.features.hidden, theirs.features.hidden)
    if mine.vectors is not None:
        assert theirs.vectors is not None
        assert torch.equal(mine.vectors, theirs.vectors)
    again = save_foundation(loaded, tmp_path / "again", laq_fingerprint="abc")
    for path in folder.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(folder)).read_bytes(), path.name


def test_weights_of_another_head_are_refused(tmp_path: Path) -> None:
    folder = save_foundation(build(), tmp_path / "query", laq_fingerprint="abc")
    other = save_foundation(build(replace(DEBUG, head="pooled")), tmp_path / "pooled", laq_fingerprint="abc")
    (other / "model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(
        ValueError,
        match=r"is not the file that the foundation\.json beside it was written for",
    ):
        load_foundation(folder)


def test_assets_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        SmolLatentHeadBackend.from_assets(tmp_path, config=DEBUG.to_dict(), spec=SPEC)


def test_a_bfloat16_backbone_has_a_float32_head_and_learns(labelled: FoundationBatch) -> None:
    backend = build(replace(WITH_VECTORS, dtype="bfloat16"), scale=1)
    assert {p.dtype for p in backend.model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in backend.head.parameters()} == {torch.float32}
    assert backend.predict(labelled).codes.shape == (3, 4)
    with pytest.raises(ValueError, match=r"weights that learn must be float32, got torch\.bfloat16"):
        train(backend, labelled, steps=1)
    learn_in_float32(backend)
    losses = train(backend, labelled, steps=10)
    assert losses[-1] < losses[0]
    assert backend.predict(labelled).codes.shape == (3, 4)


def test_a_copy_is_independent(batch: FoundationBatch) -> None:
    backend = build()
    other = copy.deepcopy(backend)
    expected = backend.predict(batch).log_probs
    train(other, batch, steps=2)
    assert torch.equal(backend.predict(batch).log_probs, expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"head": "mean"},
        {"head_layers": 0},
        {"head_heads": 0},
        {"num_vlm_layers": 0},
        {"vector_loss_weight": -1.0},
        {"flow_steps": 0},
        {"embedded_size": "huge"},
        {"dtype": "int8"},
    ],
)
def test_a_wrong_setting_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SmolLatentHeadConfig(**wrong)


def test_an_image_size_that_is_not_square_is_refused() -> None:
    with pytest.raises(ValueError, match="square"):
        build(replace(DEBUG, image_size=(32, 64)))


def test_the_configuration_is_chosen_by_name_and_survives_json() -> None:
    assert BackendConfig.get_choice_class("smol_latent_head") is SmolLatentHeadConfig
    config = replace(WITH_VECTORS, num_vlm_layers=1, lora=LoRASettings(rank=3))
    assert SmolLatentHeadConfig.from_dict(config.to_dict()) == config
