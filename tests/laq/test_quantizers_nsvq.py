"""The defects of LAPA's NSVQ, each of which ours must not have: every test but the first fails on LAPA's code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hlrp.laq.quantizers.learned import CHECK_STEPS
from hlrp.laq.quantizers.nsvq import NoiseSubstitutionQuantizer
from hlrp.latents import LatentSpec

SPEC = LatentSpec(codebook_size=4, code_seq_len=2, code_dim=2)
CORNERS = 10 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])


def quantizer_on_corners() -> NoiseSubstitutionQuantizer:
    """Codes of both slots at (±10, ±10), in training mode, with its first placement behind it.

    It takes latents as they are: what it knows of their mean and variance is 0 and 1.
    """
    quantizer = NoiseSubstitutionQuantizer(SPEC).train()
    quantizer.standardize.eval()
    quantizer.anchors.copy_(CORNERS.expand(2, 4, 2))
    quantizer.steps.fill_(1)
    return quantizer


def at(corners: list[int]) -> Tensor:
    """Latents near corners, the same in both slots."""
    x = CORNERS[corners][:, None].repeat(1, 2, 1)
    return x + 0.1 * torch.randn_like(x)


def test_the_nearest_code_is_found() -> None:
    quantizer = quantizer_on_corners().eval()
    assert quantizer(at([0, 1, 2, 3])).ids.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]


def test_a_slots_vector_is_the_code_of_its_own_id() -> None:
    quantizer = quantizer_on_corners().eval()
    x = torch.stack([CORNERS[0], CORNERS[3]])[None]
    assert torch.equal(quantizer(x).vectors, x)


def test_every_use_of_a_code_counts() -> None:
    quantizer = quantizer_on_corners()
    quantizer(at([0] * 5 + [1] * 2))
    assert quantizer.uses.tolist() == [[5, 2, 0, 0], [5, 2, 0, 0]]


@pytest.mark.parametrize("batch_size", [40, 200])
def test_a_code_is_dead_by_its_share_of_all_uses_whatever_the_batch(batch_size: int) -> None:
    quantizer = quantizer_on_corners()
    rare, often = batch_size // 40, batch_size // 10
    for _ in range(CHECK_STEPS + 1):  # shares: 2.5 %, which is dead, and 10 %, which is not
        quantizer(at([3] * rare + [2] * often + [0, 1] * ((batch_size - rare - often) // 2)))
    codes = quantizer.anchors
    torch.testing.assert_close(codes[:, :3], CORNERS[:3].expand(2, 3, 2))
    assert not torch.allclose(codes[:, 3], CORNERS[3].expand(2, 2))


def test_dead_codes_are_placed_on_recent_latents_however_long_training_lasts() -> None:
    quantizer = quantizer_on_corners()
    quantizer.steps.fill_(10**6)
    for _ in range(CHECK_STEPS + 1):
        quantizer(100 + torch.randn(32, 2, 2))
    codes = quantizer.anchors + quantizer.offsets
    assert ((codes - 100).abs() < 10).all(-1).sum(1).min() >= 3


def test_evaluation_neither_counts_nor_replaces() -> None:
    quantizer = quantizer_on_corners().eval()
    for _ in range(CHECK_STEPS + 5):
        quantizer(100 + torch.randn(32, 2, 2))
    assert quantizer.uses.count_nonzero() == 0
    torch.testing.assert_close(quantizer.anchors, CORNERS.expand(2, 4, 2))


def test_what_upkeep_knows_is_in_the_checkpoint() -> None:
    quantizer = quantizer_on_corners()
    quantizer(at([0, 1, 1]))
    resumed = NoiseSubstitutionQuantizer(SPEC)
    resumed.load_state_dict(quantizer.state_dict())
    assert torch.equal(resumed.uses, quantizer.uses)
    assert torch.equal(resumed.recent, quantizer.recent)


def test_the_noise_is_exactly_as_long_as_the_quantization_error() -> None:
    quantizer = quantizer_on_corners()
    x = at([0, 1, 2, 3] * 8)
    x[0] = CORNERS[0]  # no error at all
    quantized = quantizer(x)
    noise, error = (quantized.vectors - x).norm(dim=-1), (quantizer.lookup(quantized.ids) - x).norm(dim=-1)
    torch.testing.assert_close(noise, error, rtol=1e-4, atol=0)
    assert torch.equal(quantized.vectors[0], x[0])


def test_the_codebook_learns_from_the_reconstruction_alone() -> None:
    quantizer = quantizer_on_corners()
    quantized = quantizer(at([0, 1, 2, 3]))
    assert quantized.loss == 0
    quantized.vectors.square().sum().backward()
    assert quantizer.offsets.grad is not None
    assert (quantizer.offsets.grad.abs().sum(-1) > 0).all()


def test_a_revived_code_is_where_it_was_put_whatever_it_had_learned() -> None:
    quantizer = quantizer_on_corners()
    with torch.no_grad():
        quantizer.offsets.add_(5)
        quantizer.place(1, torch.tensor([False, True, False, False]), torch.tensor([[3.0, 4.0]]))
    assert quantizer.lookup(torch.ones(1, 2, dtype=torch.int64))[0, 1].tolist() == [3.0, 4.0]
