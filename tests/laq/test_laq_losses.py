from __future__ import annotations

import pytest
import torch

from hlrp.laq.objective.losses import (
    coarse_loss,
    feature_loss,
    labelled_mean_square,
    motion_weight,
    reconstruction_loss,
)


def test_a_still_pixel_weighs_one_and_a_moved_one_up_to_the_strength_more() -> None:
    before = torch.zeros(1, 1, 3, 1, 4)
    after = before.clone()
    after[0, 0, 0, 0] = torch.tensor([0.0, 0.25, 0.5, 1.0])  # red alone
    weight = motion_weight(before, after, strength=8.0)
    torch.testing.assert_close(weight[0, 0, 0, 0], torch.tensor([1.0, 5.0, 9.0, 9.0]))
    torch.testing.assert_close(motion_weight(after, before, strength=8.0), weight)


def test_a_perfect_prediction_costs_nothing_and_no_strength_is_the_plain_error() -> None:
    before, after, predicted = torch.rand(3, 2, 1, 1, 3, 4, 4)
    assert reconstruction_loss(after, before, after, motion_strength=8.0) == 0
    plain = reconstruction_loss(predicted, before, after, motion_strength=0.0)
    assert plain.item() == pytest.approx((predicted - after).square().mean().item())


def test_an_error_where_something_moved_costs_more() -> None:
    before, after = torch.zeros(2, 1, 1, 1, 3, 1, 2)
    after[..., 0] = 1
    moved, still = after.clone(), after.clone()
    moved[..., 0] -= 0.5
    still[..., 1] += 0.5
    costs = [reconstruction_loss(x, before, after, motion_strength=8.0).item() for x in (moved, still)]
    assert costs[0] == pytest.approx(9 * costs[1])


def test_a_motion_one_camera_sees_does_not_weigh_on_another() -> None:
    before, after = torch.zeros(2, 1, 1, 2, 3, 1, 1)
    after[:, :, 0] = 1  # only the first camera sees it
    predicted = after.clone()
    predicted[:, :, 1] += 0.5  # an error of the second
    assert reconstruction_loss(predicted, before, after, motion_strength=8.0).item() == pytest.approx(0.5**2 / 2)


def test_features_that_changed_most_weigh_most() -> None:
    change = torch.tensor([0.0, 1.0, 2.0]).reshape(1, 1, 1, 1, 1, 3)
    assert feature_loss(change, change, motion_strength=3.0) == 0
    costs = [
        feature_loss(change + error.reshape(1, 1, 1, 1, 1, 3), change, motion_strength=3.0).item()
        for error in torch.eye(3)
    ]
    assert costs == pytest.approx([1 / 3, (1 + 3 / 4) / 3, 4 / 3])


def test_only_labelled_clips_teach_actions_and_none_at_all_is_no_error() -> None:
    predicted = torch.randn(3, 1, 4, requires_grad=True)
    truth, labelled = torch.randn(3, 1, 4), torch.tensor([True, False, True])
    loss = labelled_mean_square(predicted, truth, labelled, labelled.sum())
    assert loss.item() == pytest.approx((predicted - truth)[labelled].square().mean().item())
    loss.backward()
    assert predicted.grad is not None
    assert predicted.grad[1].count_nonzero() == 0
    assert predicted.grad[0].count_nonzero() == 4
    none = torch.zeros(3, dtype=torch.bool)
    assert labelled_mean_square(predicted, truth, none, none.sum()) == 0


def test_a_thing_nearly_in_its_place_is_better_than_none_at_all_once_errors_are_averaged() -> None:
    before = torch.zeros(1, 1, 1, 3, 16, 16)
    after, beside = before.clone(), before.clone()
    after[..., 4:6, 4:6] = 1
    beside[..., 4:6, 6:8] = 1
    plain = [reconstruction_loss(x, before, after, motion_strength=0.0).item() for x in (beside, before)]
    coarse = [coarse_loss(x, before, after, motion_strength=0.0).item() for x in (beside, before)]
    assert plain[0] > plain[1]
    assert coarse[0] < coarse[1]
    assert coarse_loss(after, before, after, motion_strength=8.0) == 0
