from __future__ import annotations

import pytest
import torch

from hlrp.laq.probe import ProbeScore, linear_probe


def test_exactly_linear_data_scores_one() -> None:
    x, other = torch.randn(400, 6), torch.randn(200, 6)
    weights, bias = torch.randn(6, 3), 100 * torch.randn(3)
    score = linear_probe(x, x @ weights + bias, other, other @ weights + bias).per_target()
    torch.testing.assert_close(score, torch.ones(3, dtype=torch.float64), atol=1e-4, rtol=0)


def test_noise_scores_about_nothing() -> None:
    score = linear_probe(
        torch.randn(2000, 20), torch.randn(2000, 2), torch.randn(500, 20), torch.randn(500, 2)
    ).per_target()
    assert (score.abs() < 0.06).all()


def test_a_target_that_does_not_vary_has_no_score_and_disturbs_no_other() -> None:
    x, other = torch.randn(400, 4), torch.randn(100, 4)
    targets = torch.stack([x[:, 0], torch.full((400,), 3.0)], dim=1)
    held_out = torch.stack([other[:, 0], torch.full((100,), 3.0)], dim=1)
    score = linear_probe(x, targets, other, held_out).per_target()
    assert score[0] > 0.999
    assert score[1].isnan()


def test_a_feature_that_does_not_vary_and_a_repeated_one_do_no_harm() -> None:
    x, other = torch.randn(400, 2), torch.randn(100, 2)

    def degenerate(values: torch.Tensor) -> torch.Tensor:
        return torch.cat([values, values, torch.ones(len(values), 1)], dim=1)

    score = linear_probe(degenerate(x), x, degenerate(other), other).per_target()
    assert (score > 0.999).all()


def test_the_score_does_not_depend_on_the_units_of_features_or_targets() -> None:
    x, other = torch.randn(300, 5), torch.randn(300, 5)
    weights = torch.randn(5, 1)
    y, held_out = x @ weights + torch.randn(300, 1), other @ weights + torch.randn(300, 1)
    plain = linear_probe(x, y, other, held_out).per_target()
    scaled = linear_probe(50 * x + 7, 1e-3 * y - 2, 50 * other + 7, 1e-3 * held_out - 2).per_target()
    assert 0 < plain.item() < 1
    assert scaled.item() == pytest.approx(plain.item(), abs=1e-3)


def test_more_features_than_clips_still_give_a_finite_score() -> None:
    score = linear_probe(
        torch.randn(20, 100), torch.randn(20, 2), torch.randn(20, 100), torch.randn(20, 2)
    ).per_target()
    assert score.isfinite().all()


def test_pooling_weighs_targets_by_how_much_they_vary() -> None:
    score = ProbeScore(residual=torch.tensor([1.0, 5.0, 0.0]), total=torch.tensor([9.0, 1.0, 0.0]))
    assert float(score.pooled()) == pytest.approx(1 - 6 / 10)
    assert ProbeScore(residual=torch.zeros(2), total=torch.zeros(2)).pooled().isnan()
