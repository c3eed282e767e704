from __future__ import annotations

import torch
from torch import nn

from hlrp.foundation.trainable_rows import EmbeddingWithRows, HeadWithRows, output_rows


def test_overlaid_rows_replace_the_frozen_ones_and_alone_get_gradients() -> None:
    embedding, head = nn.Embedding(6, 3), nn.Linear(3, 6, bias=False)
    rows = nn.Parameter(torch.randn(2, 3))
    inside, outside = EmbeddingWithRows(embedding, (1, 4), rows), HeadWithRows(head, (1, 4), rows)
    table = embedding.weight.detach().clone()
    table[[1, 4]] = rows.detach()
    ids = torch.tensor([[0, 1, 4]])
    assert torch.equal(inside(ids), table[ids])
    logits = outside(torch.randn(1, 2, 3))
    assert logits.shape == (1, 2, 6)
    (inside(ids).sum() + logits.sum()).backward()
    assert rows.grad is not None
    assert embedding.weight.grad is None
    assert head.weight.grad is None


def test_head_rows_are_found_by_token_id() -> None:
    head, ids = nn.Linear(3, 6, bias=False), torch.tensor([4, 1])
    assert torch.equal(output_rows(head, ids), head.weight[[4, 1]])
    rows = nn.Parameter(torch.randn(2, 3))
    assert torch.equal(output_rows(HeadWithRows(head, (1, 4), rows), ids), rows[[1, 0]])
