from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hlrp.measure.intervals import bootstrap_weights, percentile_interval
from hlrp.measure.linear_probe import ProbeScore, episode_sums, fit_probe, linear_probe


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


def test_the_order_of_the_clips_does_not_decide_how_strongly_a_probe_is_shrunk() -> None:
    """Clips of two tasks: of the second, nothing can be learned from the first."""
    task = torch.arange(400) // 300
    x = torch.randn(400, 60) * F.one_hot(task, 2).repeat_interleave(30, dim=1)
    y = x @ torch.randn(60, 2) + 0.1 * torch.randn(400, 2)
    order = torch.randperm(400)
    held_out = torch.randn(200, 60) * F.one_hot(torch.arange(200) % 2, 2).repeat_interleave(30, dim=1)
    features = [fit_probe(x, y), fit_probe(x[order], y[order])]
    in_order, shuffled = (probe.predict(held_out) for probe in features)
    assert (in_order - shuffled).abs().max() < 0.05 * shuffled.abs().max()


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


def test_the_sums_of_all_episodes_give_the_score_of_all_clips() -> None:
    truth, predicted = 100 + torch.randn(60, 3), 100 + torch.randn(60, 3)
    episode = torch.arange(60) % 7 * 10  # numbers need not be consecutive
    score = episode_sums(truth, predicted, episode).score()
    torch.testing.assert_close(score.residual, (truth - predicted).double().square().sum(0))
    torch.testing.assert_close(score.total, (truth - truth.mean(0)).double().square().sum(0), rtol=1e-4, atol=0)


def test_a_resample_scores_as_if_its_clips_were_repeated() -> None:
    truth, predicted, episode = torch.randn(30, 2), torch.randn(30, 2), torch.arange(30) // 10
    weights = torch.tensor([[2.0, 0.0, 1.0]], dtype=torch.float64)
    resampled = episode_sums(truth, predicted, episode).resampled(weights).pooled()
    rows = torch.cat([torch.arange(10), torch.arange(10), torch.arange(20, 30)])
    repeated = episode_sums(truth[rows], predicted[rows], episode[rows]).score().pooled()
    torch.testing.assert_close(resampled[0], repeated)


def test_every_resample_draws_as_many_episodes_as_there_are_and_is_the_same_in_every_run() -> None:
    weights = bootstrap_weights(9)
    assert (weights.sum(1) == 9).all()
    assert torch.equal(weights, bootstrap_weights(9))
    assert weights.mean(0).sub(1).abs().max() < 0.2


def test_the_interval_contains_the_point_and_narrows_with_more_episodes() -> None:
    def interval(episodes: int) -> tuple[float, float]:
        truth = torch.randn(10 * episodes, 2)
        sums = episode_sums(truth, truth + 0.5 * torch.randn_like(truth), torch.arange(len(truth)) // 10)
        found = percentile_interval(sums.resampled(bootstrap_weights(episodes)).pooled())
        assert found is not None
        assert found[0] < float(sums.score().pooled()) < found[1]
        return found

    (low, high), (lower, higher) = interval(200), interval(5)
    assert high - low < higher - lower


def test_an_undefined_score_has_no_interval() -> None:
    assert percentile_interval(torch.tensor([0.5, torch.nan])) is None
