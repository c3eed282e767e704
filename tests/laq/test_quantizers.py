"""What holds for every quantizer that the project ships; docs/extending.md says what another quantizer must do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from hlrp.laq.config import QUANTIZERS
from hlrp.laq.quantizers import Quantized, Quantizer, quantizer_class
from hlrp.laq.quantizers.kmeans import WhitenedKMeans
from hlrp.laq.quantizers.learned import CHECK_STEPS, LearnedCodebooks
from hlrp.latents import NO_LABEL, LatentSpec
from hlrp.training.callbacks import replaced_values

SPEC = LatentSpec(codebook_size=8, code_seq_len=3, code_dim=6)
NAMES = list(QUANTIZERS)
WITH_CODES = [name for name in NAMES if quantizer_class(name).has_codes]
OWN_SLOTS = [name for name in NAMES if name not in ("rvq", "kmeans")]
WITH_GRADIENT = [name for name in NAMES if name != "kmeans"]  # whose codes, once fitted, stay as they are
LEARNED = ["nsvq", "vq", "simvq", "rvq"]


def latents(b: int = 64, spec: LatentSpec = SPEC) -> Tensor:
    return torch.randn(b, spec.code_seq_len, spec.code_dim)


def trained(name: str, spec: LatentSpec = SPEC, steps: int = 3) -> Quantizer:
    """A quantizer in evaluation mode that has seen data."""
    quantizer = quantizer_class(name)(spec).train()
    for _ in range(steps):
        quantizer(latents(256, spec))
    if isinstance(quantizer, WhitenedKMeans):
        clips = latents(512, spec)
        quantizer.fit(*(clips + 0.3 * torch.randn_like(clips) for _ in range(2)))
    return quantizer.eval()


def step(quantizer: Quantizer, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    quantized = quantizer(x)
    optimizer.zero_grad()
    ((quantized.vectors - x.roll(1, dims=-1)).square().mean() + quantized.loss).backward()
    optimizer.step()


@pytest.mark.parametrize("name", WITH_CODES)
@pytest.mark.parametrize(("s", "k"), [(1, 2), (2, 5), (4, 8), (5, 32), (16, 8)])
def test_ids_are_codes_that_look_up_the_vectors_and_most_are_used(name: str, s: int, k: int) -> None:
    spec = LatentSpec(codebook_size=k, code_seq_len=s, code_dim=6)
    quantizer = trained(name, spec)
    assert quantizer.has_codes
    quantized = quantizer(latents(512, spec))
    assert quantized.ids.shape == (512, s)
    assert quantized.ids.dtype == torch.int64
    assert quantized.ids.min() >= 0
    assert quantized.ids.max() < k
    assert all(len(quantized.ids[:, slot].unique()) > k // 2 for slot in range(s))
    assert torch.equal(quantizer.lookup(quantized.ids), quantized.vectors)
    codebook = quantizer.codebook(spec)
    assert codebook.shape == (s, k, 6)
    for slot in range(s):
        torch.testing.assert_close(codebook[slot, quantized.ids[:, slot]], quantized.vectors[:, slot])
        assert len(codebook[slot].detach().unique(dim=0)) == k


@pytest.mark.parametrize("name", OWN_SLOTS)
@pytest.mark.parametrize("slot", range(SPEC.code_seq_len))
def test_a_slot_changes_only_its_own_code_and_vector(name: str, slot: int) -> None:
    quantizer = trained(name)
    before = latents()
    after = before.clone()
    after[:, slot] = torch.randn(64, SPEC.code_dim)
    one, other = quantizer(before), quantizer(after)
    rest = [i for i in range(SPEC.code_seq_len) if i != slot]
    assert torch.equal(one.ids[:, rest], other.ids[:, rest])
    assert torch.equal(one.vectors[:, rest], other.vectors[:, rest])
    assert not torch.equal(one.vectors[:, slot], other.vectors[:, slot])


@pytest.mark.parametrize("name", OWN_SLOTS)
def test_a_slot_mixes_with_no_other_in_its_gradient(name: str) -> None:
    x = latents(16).requires_grad_()
    trained(name).train()(x).vectors[:, 1].square().sum().backward()
    assert x.grad is not None
    assert x.grad[:, [0, 2]].count_nonzero() == 0
    assert x.grad[:, 1].abs().sum() > 0


@pytest.mark.parametrize("name", WITH_GRADIENT)
def test_the_gradient_reaches_every_latent(name: str) -> None:
    x = latents(16).requires_grad_()
    quantized = trained(name).train()(x)
    (quantized.vectors.square().mean() + quantized.loss).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad.abs().amax(-1) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_changes_no_state_repeats_itself_and_costs_nothing(name: str) -> None:
    quantizer = trained(name)
    before = copy.deepcopy(quantizer.state_dict())
    x = 100 * latents()
    one, other = quantizer(x), quantizer(x)
    assert torch.equal(one.vectors, other.vectors)
    assert torch.equal(one.ids, other.ids)
    assert one.loss == 0
    torch.testing.assert_close(dict(quantizer.state_dict()), dict(before), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_does_not_depend_on_its_batch_in_evaluation(name: str) -> None:
    quantizer, x = trained(name), latents(8)
    assert torch.equal(quantizer(x.flip(0)).ids, quantizer(x).ids.flip(0))
    torch.testing.assert_close(quantizer(x[:1]).vectors, quantizer(x).vectors[:1])


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_training_ends_exactly_as_an_uninterrupted_one(name: str) -> None:
    batches = [latents(12) + i / 10 for i in range(60)]  # latents drift, so that codes die and are revived
    quantizer = quantizer_class(name)(SPEC).train()
    optimizer = torch.optim.SGD([*quantizer.parameters(), torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    for x in batches[:30]:
        step(quantizer, optimizer, x.clone().requires_grad_())
    state, rng = copy.deepcopy(quantizer.state_dict()), torch.get_rng_state()
    for x in batches[30:]:
        step(quantizer, optimizer, x.clone().requires_grad_())

    resumed = quantizer_class(name)(SPEC).train()
    resumed.load_state_dict(state)
    torch.set_rng_state(rng)
    optimizer = torch.optim.SGD([*resumed.parameters(), torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    for x in batches[30:]:
        step(resumed, optimizer, x.clone().requires_grad_())
    torch.testing.assert_close(dict(resumed.state_dict()), dict(quantizer.state_dict()), rtol=0, atol=0)
    x = latents()
    assert torch.equal(resumed.eval()(x).vectors, quantizer.eval()(x).vectors)


@pytest.mark.parametrize("name", WITH_GRADIENT)
def test_a_half_precision_encoder_is_quantized_in_full_precision(name: str) -> None:
    quantizer, x = trained(name), latents().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = quantizer(x)
    assert inside.vectors.dtype == torch.float32
    assert torch.equal(inside.vectors, quantizer(x.float()).vectors)
    x.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quantizer.train()(x).vectors.square().mean().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", WITH_CODES)
@pytest.mark.parametrize("batch_size", [8, 256])
def test_codes_spread_over_latents_that_sit_far_away_and_hardly_differ(name: str, batch_size: int) -> None:
    quantizer = quantizer_class(name)(SPEC).train()
    for _ in range(40):
        quantizer(5 + 0.01 * latents(batch_size))
    ids = quantizer.eval()(5 + 0.01 * latents(512)).ids
    usage = torch.nn.functional.one_hot(ids, 8).double().mean(0)
    perplexity = torch.special.entr(usage).sum(-1).exp()
    assert (perplexity > 4).all(), perplexity


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("batch_size", [8, 256])
def test_codes_follow_latents_that_have_moved_away(name: str, batch_size: int) -> None:
    quantizer = quantizer_class(name)(SPEC).train()
    for place in (0, 30, -30):
        for _ in range(45):
            quantizer(place + latents(batch_size))
    ids = quantizer.eval()(-30 + latents(512)).ids
    assert all(len(ids[:, slot].unique()) >= 6 for slot in range(3))


@pytest.mark.parametrize("name", LEARNED)
def test_upkeep_happens_in_training_only(name: str) -> None:
    quantizer = trained(name)
    before = copy.deepcopy(quantizer.state_dict())
    quantizer(latents())
    torch.testing.assert_close(dict(quantizer.state_dict()), dict(before), rtol=0, atol=0)
    quantizer.train()(latents())
    assert quantizer.state_dict()["steps"] == before["steps"] + 1
    assert not torch.equal(quantizer.state_dict()["recent"], before["recent"])


@pytest.mark.parametrize("name", LEARNED)
@torch.no_grad()
def test_an_average_that_takes_over_replaced_values_has_the_codes_that_were_placed_anew(name: str) -> None:
    quantizer = quantizer_class(name)(SPEC).train()
    assert isinstance(quantizer, LearnedCodebooks)
    quantizer(latents(256))  # places every code
    assert replaced_values(quantizer).keys() > {"recent", "standardize.batches"}
    average = copy.deepcopy(quantizer)
    quantizer.uses.fill_(100)[:, 2] = 0
    quantizer.steps.fill_(CHECK_STEPS)
    quantizer(latents(256))  # places code 2 of every slot
    replaced = replaced_values(quantizer)
    now = dict([*quantizer.named_parameters(), *quantizer.named_buffers()])
    for tensor_name, value in [*average.named_parameters(), *average.named_buffers()]:
        if value.is_floating_point():
            mixed = (value + now[tensor_name]) / 2
            mask = replaced.get(tensor_name, torch.tensor(False))
            value.copy_(torch.where(mask, now[tensor_name], mixed))
    assert torch.equal(average.codebook(SPEC)[:, 2], quantizer.codebook(SPEC)[:, 2])
    assert not quantizer.revived.any()


def test_a_residual_chain_comes_closer_with_every_level() -> None:
    quantizer, x = trained("rvq", steps=30), latents(512)
    target = x.mean(1)
    partial = quantizer(x).vectors.cumsum(1)
    errors = (partial - target[:, None]).square().mean((0, 2))
    assert errors[0] < target.square().mean()
    assert errors[1] < errors[0]
    assert errors[2] < errors[1]


def test_a_level_depends_on_no_codebook_after_its_own() -> None:
    quantizer, x = trained("rvq"), latents()
    before = quantizer(x).ids
    quantizer.slots[1].codebook = torch.randn(8, 6)  # pyright: ignore
    after = quantizer(x).ids
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.equal(before[:, 1], after[:, 1])


@pytest.mark.parametrize("slot", range(SPEC.code_seq_len))
def test_the_first_code_of_a_residual_chain_depends_on_every_slot(slot: int) -> None:
    quantizer, before = trained("rvq"), latents()
    after = before.clone()
    after[:, slot] += 3
    assert not torch.equal(quantizer(before).ids[:, 0], quantizer(after).ids[:, 0])


def test_a_continuous_bottleneck_has_vectors_and_no_codes() -> None:
    quantizer, x = trained("continuous"), latents()
    assert not quantizer.has_codes
    quantized = quantizer(x)
    assert torch.equal(quantized.vectors, x)
    assert (quantized.ids == NO_LABEL).all()
    for ask in (lambda: quantizer.lookup(quantized.ids), lambda: quantizer.codebook(SPEC)):
        with pytest.raises(ValueError, match="a continuous LAQ has no codes"):
            ask()


def test_a_continuous_bottleneck_draws_around_its_mean_and_pays_for_information() -> None:
    quantizer = quantizer_class("continuous")(SPEC).train()
    x = torch.zeros(4096, 3, 6)
    one, other = quantizer(x), quantizer(x)
    assert not torch.equal(one.vectors, other.vectors)
    assert one.vectors.mean(0).abs().max() < 0.05
    torch.testing.assert_close(one.vectors.var(0), torch.full((3, 6), torch.e**-2), rtol=0.1, atol=0)
    assert 0 < one.loss < quantizer(x + 1).loss < quantizer(x + 2).loss


class SignQuantizer(Quantizer):
    """One bit a slot, in vectors of width 1; it has neither parameters nor buffers."""

    def quantize(self, latents: Tensor) -> Quantized:
        ids = (latents[..., 0] > 0).long()
        return Quantized(self.lookup(ids), ids, latents.new_zeros(()))

    def lookup(self, ids: Tensor) -> Tensor:
        return 2.0 * ids[..., None] - 1


def test_a_quantizer_without_parameters_has_a_codebook() -> None:
    codebook = SignQuantizer().codebook(LatentSpec(codebook_size=2, code_seq_len=3, code_dim=1))
    assert codebook.tolist() == [[[-1.0], [1.0]]] * 3
