from __future__ import annotations

import pytest
import torch

from hlrp.laq.losses import motion_weight, reconstruction_loss


def test_a_still_pixel_weighs_one_and_a_moved_one_up_to_the_strength_more() -> None:
    before = torch.zeros(1, 1, 3, 1, 4)
    after = before.clone()
    after[0, 0, 0, 0] = torch.tensor([0.0, 0.25, 0.5, 1.0])  # red alone
    weight = motion_weight(before, after, strength=8.0)
    torch.testing.assert_close(weight[0, 0, 0, 0], torch.tensor([1.0, 5.0, 9.0, 9.0]))
    torch.testing.assert_close(motion_weight(after, before, strength=8.0), weight)


def test_a_perfect_prediction_costs_nothing_and_no_strength_is_the_plain_error() -> None:
    before, after, predicted = torch.rand(3, 2, 1, 3, 4, 4)
    assert reconstruction_loss(after, before, after, motion_strength=8.0) == 0
    plain = reconstruction_loss(predicted, before, after, motion_strength=0.0)
    assert plain.item() == pytest.approx((predicted - after).square().mean().item())


def test_an_error_where_something_moved_costs_more() -> None:
    before, after = torch.zeros(1, 1, 3, 1, 2), torch.zeros(1, 1, 3, 1, 2)
    after[..., 0] = 1
    moved, still = after.clone(), after.clone()
    moved[..., 0] -= 0.5
    still[..., 1] += 0.5
    costs = [reconstruction_loss(x, before, after, motion_strength=8.0).item() for x in (moved, still)]
    assert costs[0] == pytest.approx(9 * costs[1])
