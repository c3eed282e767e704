from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hlrp.laq.quantizer import QUANTIZERS, Quantizer, factor_levels
from hlrp.latents import LatentSpec

SPEC = LatentSpec(codebook_size=8, code_seq_len=3, code_dim=6)


@pytest.fixture(params=["fsq", "vq"])
def quantizer(request: pytest.FixtureRequest) -> Quantizer:
    """One of each, in evaluation mode, with a codebook that has seen data."""
    module = QUANTIZERS[request.param](SPEC)
    module.train()(latents())
    return module.eval()


def latents(b: int = 64) -> Tensor:
    return torch.randn(b, SPEC.code_seq_len, SPEC.code_dim)


@pytest.mark.parametrize("slot", range(SPEC.code_seq_len))
def test_a_slot_changes_only_its_own_code_and_vector(quantizer: Quantizer, slot: int) -> None:
    before = latents()
    after = before.clone()
    after[:, slot] = torch.randn(64, SPEC.code_dim)
    one, other = quantizer(before), quantizer(after)
    rest = [i for i in range(SPEC.code_seq_len) if i != slot]
    assert torch.equal(one.ids[:, rest], other.ids[:, rest])
    assert torch.equal(one.vectors[:, rest], other.vectors[:, rest])
    assert (one.ids[:, slot] != other.ids[:, slot]).float().mean() > 0.5


def test_a_slot_mixes_with_no_other_in_its_gradient(quantizer: Quantizer) -> None:
    x = latents(4).requires_grad_()
    quantizer.train()(x).vectors[:, 1].sum().backward()
    assert x.grad is not None
    assert x.grad[:, [0, 2]].count_nonzero() == 0
    assert x.grad[:, 1].abs().sum() > 0


def test_a_sample_does_not_depend_on_its_batch_in_evaluation(quantizer: Quantizer) -> None:
    x = latents(8)
    torch.testing.assert_close(quantizer(x.flip(0)).ids, quantizer(x).ids.flip(0), rtol=0, atol=0)
    assert torch.equal(quantizer(x[:1]).ids, quantizer(x).ids[:1])


def test_lookup_inverts_forward(quantizer: Quantizer) -> None:
    quantized = quantizer(latents())
    torch.testing.assert_close(quantizer.lookup(quantized.ids), quantized.vectors)


def test_codes_are_ids_in_range_and_more_than_one_is_used(quantizer: Quantizer) -> None:
    ids = quantizer(latents(256)).ids
    assert ids.dtype == torch.int64
    assert ids.min() >= 0
    assert ids.max() < SPEC.codebook_size
    assert all(len(ids[:, slot].unique()) > SPEC.codebook_size // 2 for slot in range(SPEC.code_seq_len))


def test_the_codebook_lists_what_lookup_returns(quantizer: Quantizer) -> None:
    codebook = quantizer.codebook(SPEC)
    assert codebook.shape == (SPEC.code_seq_len, SPEC.codebook_size, SPEC.code_dim)
    ids = quantizer(latents(5)).ids
    for slot in range(SPEC.code_seq_len):
        torch.testing.assert_close(codebook[slot, ids[:, slot]], quantizer.lookup(ids)[:, slot])
        assert len(codebook[slot].detach().unique(dim=0)) == SPEC.codebook_size


def test_the_gradient_passes_straight_through_to_the_encoder(quantizer: Quantizer) -> None:
    x = latents(16).requires_grad_()
    quantized = quantizer.train()(x)
    (quantized.vectors.square().mean() + quantized.loss).backward()
    assert x.grad is not None
    assert (x.grad.abs().amax(-1) > 0).all()


def test_evaluation_changes_no_state(quantizer: Quantizer) -> None:
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(100 * latents())
    torch.testing.assert_close(dict(quantizer.state_dict()), before, rtol=0, atol=0)


def test_an_untrained_vq_refuses_to_make_a_codebook_of_what_it_is_asked_to_label() -> None:
    quantizer = QUANTIZERS["vq"](SPEC).eval()
    with pytest.raises(ValueError, match="starts from its first training batch; train it before it labels"):
        quantizer(latents())


def test_training_on_a_shifted_and_scaled_batch_still_spreads_over_the_codes() -> None:
    quantizer = QUANTIZERS["fsq"](SPEC).train()
    ids = quantizer(5 + 0.01 * latents(512)).ids
    assert all(len(ids[:, slot].unique()) == SPEC.codebook_size for slot in range(SPEC.code_seq_len))


@pytest.mark.parametrize("codebook_size", [2, 3, 4, 5, 6, 8, 12, 16, 27, 64, 100, 256, 1000, 1024])
def test_levels_multiply_to_the_codebook(codebook_size: int) -> None:
    levels = factor_levels(codebook_size)
    assert math.prod(levels) == codebook_size
    assert all(2 <= level <= 16 for level in levels)


@pytest.mark.parametrize("codebook_size", [17, 34, 62, 127])
def test_a_codebook_with_a_large_prime_factor_is_refused(codebook_size: int) -> None:
    with pytest.raises(ValueError, match=f"cannot spread codebook_size={codebook_size}.*power of two, or vq"):
        factor_levels(codebook_size)


@pytest.mark.parametrize("codebook_size", [2, 5, 6, 12])
def test_every_size_of_codebook_round_trips(codebook_size: int) -> None:
    spec = LatentSpec(codebook_size=codebook_size, code_seq_len=2, code_dim=4)
    quantizer = QUANTIZERS["fsq"](spec).eval()
    quantized = quantizer(3 * torch.randn(512, 2, 4))
    assert len(quantized.ids[:, 0].unique()) == codebook_size
    torch.testing.assert_close(quantizer.lookup(quantized.ids), quantized.vectors)
