from __future__ import annotations

import torch
from torch import nn

from hlrp.foundation.backends.qwen3vl.trainable_rows import EmbeddingWithRows, HeadWithRows, output_rows


def test_overlaid_rows_replace_the_frozen_ones_and_alone_get_gradients() -> None:
    embedding, head = nn.Embedding(6, 3), nn.Linear(3, 6, bias=False)
    inside, outside = EmbeddingWithRows(embedding, (1, 4)), HeadWithRows(head, (1, 4))
    inside.rows.data.normal_()
    table = embedding.weight.detach().clone()
    table[[1, 4]] = inside.rows.detach()
    ids = torch.tensor([[0, 1, 4]])
    assert torch.equal(inside(ids), table[ids])
    logits = outside(torch.randn(1, 2, 3))
    assert logits.shape == (1, 2, 6)
    (inside(ids).sum() + logits.sum()).backward()
    assert inside.rows.grad is not None
    assert outside.rows.grad is not None
    assert embedding.weight.grad is None
    assert head.weight.grad is None


def test_head_rows_are_found_by_token_id() -> None:
    head, ids = nn.Linear(3, 6, bias=False), torch.tensor([4, 1])
    assert torch.equal(output_rows(head, ids), head.weight[[4, 1]])
    overlaid = HeadWithRows(head, (1, 4))
    overlaid.rows.data.normal_()
    assert torch.equal(output_rows(overlaid, ids), overlaid.rows[[1, 0]])
