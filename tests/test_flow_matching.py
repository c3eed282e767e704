from __future__ import annotations

import torch

from hlrp.flow_matching import integrate, path_point


def test_the_path_runs_from_noise_at_time_one_to_data_at_time_zero() -> None:
    data, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    found = path_point(data, noise, torch.tensor([1.0, 0.0]))
    assert torch.equal(found[0], noise[0])
    assert torch.equal(found[1], data[1])


def test_the_true_velocity_leads_from_noise_to_data_in_any_number_of_steps() -> None:
    data, noise = torch.randn(2, 3), torch.randn(2, 3)
    for steps in (1, 7):
        torch.testing.assert_close(integrate(lambda *_: noise - data, noise, steps=steps), data)
