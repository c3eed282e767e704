from __future__ import annotations

import pytest
import torch

from hlrp.foundation.backends.smolvlm.latent_head import HEADS, LatentHead

both_heads = pytest.mark.parametrize("kind", HEADS)


def make_head(kind: str, *, layers: int = 1) -> LatentHead:
    return LatentHead(kind, width=8, num_slots=3, codebook_size=5, layers=layers, heads=2)


@both_heads
@pytest.mark.parametrize("layers", [1, 2])
def test_every_slot_gets_features_and_scores(kind: str, layers: int) -> None:
    scores = make_head(kind, layers=layers)(torch.randn(2, 6, 8), torch.ones(2, 6, dtype=torch.bool))
    assert scores.features.shape == (2, 3, 8)
    assert scores.logits.shape == (2, 3, 5)
    assert not torch.allclose(scores.features[:, 0], scores.features[:, 1])


@both_heads
def test_what_stands_on_padding_is_not_read(kind: str) -> None:
    head, hidden = make_head(kind), torch.randn(2, 6, 8)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[0, :2] = False
    other = hidden.clone()
    other[0, :2] = 100.0
    assert torch.equal(head(other, mask).logits, head(hidden, mask).logits)
    torch.testing.assert_close(head(hidden[:1, 2:], mask[:1, 2:]).logits, head(hidden, mask).logits[:1])
    changed = hidden.clone()
    changed[0, 3] = 100.0
    assert not torch.allclose(head(changed, mask).logits[0], head(hidden, mask).logits[0])


@both_heads
def test_samples_do_not_mix(kind: str) -> None:
    head, hidden, mask = make_head(kind), torch.randn(2, 6, 8), torch.ones(2, 6, dtype=torch.bool)
    torch.testing.assert_close(head(hidden.flip(0), mask).logits, head(hidden, mask).logits.flip(0))


@both_heads
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    head = make_head(kind, layers=2)
    head(torch.randn(2, 6, 8), torch.ones(2, 6, dtype=torch.bool)).logits.square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in head.parameters())


def test_half_precision_features_are_read_in_the_heads_own_precision() -> None:
    mask = torch.ones(2, 6, dtype=torch.bool)
    assert make_head("query")(torch.randn(2, 6, 8, dtype=torch.bfloat16), mask).logits.dtype == torch.float32


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="must divide the model's width 8, got 3"):
        LatentHead("query", width=8, num_slots=3, codebook_size=5, layers=1, heads=3)
