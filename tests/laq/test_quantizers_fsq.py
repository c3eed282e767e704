from __future__ import annotations

import math

import pytest
import torch

from hlrp.laq.quantizers import quantizer_class
from hlrp.laq.quantizers.fsq import factor_levels, usage_loss
from hlrp.laq.quantizers.standardization import BatchStandardization
from hlrp.latents import LatentSpec


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
    quantizer = quantizer_class("fsq")(spec).eval()
    quantized = quantizer(3 * torch.randn(512, 2, 4))
    assert len(quantized.ids[:, 0].unique()) == codebook_size
    assert torch.equal(quantizer.lookup(quantized.ids), quantized.vectors)


def test_training_standardizes_the_batch_and_evaluation_what_it_remembers() -> None:
    standardize = BatchStandardization(2, 3).train()
    x = 5 + 3 * torch.randn(64, 2, 3)
    y = standardize(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(2, 3))
    torch.testing.assert_close(standardize.eval()(x), y)  # the first batch is all it has seen


def test_usage_costs_nothing_only_where_dimensions_are_balanced_and_independent() -> None:
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])[:, None]
    assert usage_loss(corners) == 0
    assert usage_loss(corners + 0.5) > 0.01
    assert usage_loss(corners[[0, 3]]) > 0.1
