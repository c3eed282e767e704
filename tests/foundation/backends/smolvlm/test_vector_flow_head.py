from __future__ import annotations

import torch

from hlrp.foundation.backends.smolvlm.vector_flow_head import Standardizer, VectorFlowHead
from hlrp.training.row_draws import RowDraws

ALL = torch.ones(4, dtype=torch.bool)


def draws(step: int, num_rows: int = 4) -> RowDraws:
    return RowDraws.of_part(step, 0, 1, batch_size=num_rows)


def test_statistics_of_several_batches_are_those_of_all_the_kept_vectors() -> None:
    standardizer = Standardizer(num_slots=2, width=3)
    vectors, keep = 5 + 3 * torch.randn(20, 2, 3), torch.rand(20) < 0.6
    for start in (0, 3, 11):
        rows = slice(start, {0: 3, 3: 11, 11: 20}[start])
        standardizer.update(vectors[rows], keep[rows])
    assert standardizer.count == keep.sum()
    torch.testing.assert_close(standardizer.mean, vectors[keep].mean(0))
    torch.testing.assert_close(standardizer.variance, vectors[keep].var(0, correction=0))
    torch.testing.assert_close(standardizer.restore(standardizer.standardize(vectors)), vectors)


def test_a_batch_with_nothing_to_keep_changes_no_statistic() -> None:
    standardizer = Standardizer(num_slots=1, width=2)
    for _ in range(2):
        before = [buffer.clone() for buffer in standardizer.buffers()]
        standardizer.update(torch.full((4, 1, 2), torch.nan), ~ALL)
        assert all(torch.equal(mine, was) for mine, was in zip(standardizer.buffers(), before, strict=True))
        standardizer.update(torch.randn(4, 1, 2), ALL)


def test_a_channel_that_never_varies_stays_finite() -> None:
    standardizer = Standardizer(num_slots=1, width=2)
    vectors = torch.full((4, 1, 2), 7.0)
    standardizer.update(vectors, ALL)
    assert torch.equal(standardizer.standardize(vectors), torch.zeros(4, 1, 2))


def test_statistics_move_in_training_only() -> None:
    head = VectorFlowHead(condition_width=4, num_slots=2, vector_width=3)
    vectors, condition = torch.randn(4, 2, 3), torch.randn(4, 2, 4)
    head.eval().loss(vectors, condition, ALL, draws=draws(0))
    assert head.standardizer.count == 0
    head.train().loss(vectors, condition, ALL, draws=draws(0))
    assert head.standardizer.count == 4


def test_samples_not_to_keep_contribute_exactly_nothing() -> None:
    head = VectorFlowHead(condition_width=4, num_slots=2, vector_width=3)
    vectors, keep = torch.randn(4, 2, 3), torch.tensor([True, False, True, False])
    condition = torch.randn(4, 2, 4, requires_grad=True)
    vectors[1] = torch.nan
    loss = head.loss(vectors, condition, keep, draws=draws(3))
    loss.sum().backward()
    assert loss[~keep].tolist() == [0.0, 0.0]
    assert bool(torch.isfinite(loss).all())
    assert condition.grad is not None
    assert not condition.grad[~keep].any()
    assert condition.grad[keep].any()
    assert all(bool(torch.isfinite(p.grad).all()) for p in head.parameters() if p.grad is not None)


def test_a_draw_repeats_itself_and_differs_from_the_next() -> None:
    head = VectorFlowHead(condition_width=4, num_slots=2, vector_width=3).eval()
    vectors, condition = torch.randn(4, 2, 3), torch.randn(4, 2, 4)
    first, again, other = (head.loss(vectors, condition, ALL, draws=draws(step)) for step in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_a_straight_velocity_is_integrated_exactly_in_any_number_of_steps() -> None:
    head = VectorFlowHead(condition_width=4, num_slots=2, vector_width=3)
    last = head.network[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, 2.0)
    for steps in (1, 7):
        vectors = head.integrate(torch.ones(4, 2, 3), torch.randn(4, 2, 4), steps=steps)
        torch.testing.assert_close(vectors, torch.full((4, 2, 3), 3.0))


def test_the_head_learns_a_simple_mapping() -> None:
    head = VectorFlowHead(condition_width=4, num_slots=2, vector_width=3)
    mapping = torch.randn(4, 3)
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    for step in range(500):
        condition = torch.randn(128, 2, 4)
        vectors = 10 + 4 * condition @ mapping
        keep = torch.ones(128, dtype=torch.bool)
        optimizer.zero_grad()
        head.loss(vectors, condition, keep, draws=draws(step, 128)).mean().backward()
        optimizer.step()
    condition = torch.randn(256, 2, 4)
    truth = 10 + 4 * condition @ mapping
    for noise in (torch.zeros_like(truth), torch.randn_like(truth)):
        with torch.no_grad():
            error = (head.integrate(noise, condition, steps=8) - truth).square().mean()
        assert float(error / truth.var()) < 0.1
