from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hlrp.experts.flow import FlowExpert, FlowOptions
from hlrp.experts.interface import ExpertSizes, ObservationTokens

OPTIONS = FlowOptions(expert_width=16, expert_layers=2, expert_heads=2)


def make_expert(*, steps: int = 2, **sizes: Any) -> FlowExpert:
    torch.manual_seed(0)
    usual: dict[str, Any] = {"chunk_size": 5, "action_dim": 2, "feature_dim": 8, "num_tokens": None, "state_dim": 3}
    return FlowExpert(OPTIONS, ExpertSizes(**{**usual, **sizes}), num_inference_steps=steps)


def perturbed(expert: FlowExpert) -> FlowExpert:
    """Change the weights that start at zero, so that every input can reach the output."""
    with torch.no_grad():
        for parameter in expert.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return expert


def act(expert: FlowExpert, features: Tensor, mask: Tensor | None = None, **kwargs: Any) -> Tensor:
    return expert.act(ObservationTokens(features, mask), None, torch.zeros(len(features), 3), **kwargs)


def test_it_learns_which_chunk_belongs_to_which_features() -> None:
    expert = make_expert(steps=10)
    features = torch.randn(2, 4, 8)
    chunks = torch.tensor([1.0, -1.0])[:, None, None] * torch.linspace(0, 1, 5)[:, None] * torch.tensor([1.0, 2.0])
    optimizer = torch.optim.Adam(expert.parameters(), lr=5e-3)
    for _ in range(250):
        rows = torch.randint(2, (32,))
        loss = expert.loss(chunks[rows], ObservationTokens(features[rows]), None, torch.zeros(32, 3)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = act(expert, features)
    assert (found - chunks).abs().mean() < 0.25


def test_noise_draws_are_like_copies_of_the_samples() -> None:
    expert = perturbed(make_expert())
    chunks, features, state = torch.randn(3, 5, 2), torch.randn(3, 4, 8), torch.randn(3, 3)
    mask = torch.tensor([[True] * 4, [False, True, True, True], [True] * 4])
    torch.manual_seed(1)
    drawn = expert.loss(chunks, ObservationTokens(features, mask), None, state, draws=2)
    torch.manual_seed(1)
    copies = [tensor.repeat_interleave(2, 0) for tensor in (chunks, features, mask, state)]
    copied = expert.loss(copies[0], ObservationTokens(copies[1], copies[2]), None, copies[3])
    torch.testing.assert_close(drawn, copied.unflatten(0, (3, 2)).mean(1))


def test_masked_tokens_do_not_count_and_others_do() -> None:
    expert = perturbed(make_expert())
    features = torch.randn(1, 4, 8)
    mask = torch.tensor([[False, True, True, True]])
    noise = torch.randn(1, 5, 2)

    def chunk(changed: int) -> Tensor:
        other = features.clone()
        other[0, changed] += 1
        return act(expert, other, mask, noise=noise)

    plain = act(expert, features, mask, noise=noise)
    assert torch.equal(chunk(0), plain)
    assert not torch.equal(chunk(1), plain)


def test_state_and_time_reach_the_velocity() -> None:
    expert = perturbed(make_expert())
    observation, noisy, state = ObservationTokens(torch.randn(1, 4, 8)), torch.randn(1, 5, 2), torch.zeros(1, 3)
    base = expert.velocity(noisy, torch.tensor([0.5]), expert.prefix(observation, None, state))
    moved = expert.velocity(noisy, torch.tensor([0.5]), expert.prefix(observation, None, state + 1))
    later = expert.velocity(noisy, torch.tensor([0.4]), expert.prefix(observation, None, state))
    assert not torch.equal(base, moved)
    assert not torch.equal(base, later)


def test_codes_reach_the_actions() -> None:
    expert = perturbed(make_expert(num_codes=2, code_dim=3, state_dim=None))
    observation, noise, codes = ObservationTokens(torch.randn(1, 4, 8)), torch.randn(1, 5, 2), torch.randn(1, 2, 3)
    base = expert.act(observation, codes, None, noise=noise)
    assert torch.equal(expert.act(observation, codes, None, noise=noise), base)
    assert not torch.equal(expert.act(observation, -codes, None, noise=noise), base)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param([[0.5, 1.0], [-1.0, 2.0]], id="another order"),
        pytest.param([[-2.0, 4.0], [0.5, 1.0]], id="another length"),
    ],
)
def test_order_and_length_of_code_vectors_reach_the_actions(other: list[list[float]]) -> None:
    expert = perturbed(make_expert(num_codes=2, code_dim=2, state_dim=None))
    observation, noise = ObservationTokens(torch.randn(1, 4, 8)), torch.randn(1, 5, 2)
    codes = torch.tensor([[[-1.0, 2.0], [0.5, 1.0]]])
    base = expert.act(observation, codes, None, noise=noise)
    assert (expert.act(observation, torch.tensor([other]), None, noise=noise) - base).abs().max() > 1e-3


def test_without_codes_every_weight_is_used() -> None:
    expert = perturbed(make_expert())
    observation = ObservationTokens(torch.randn(2, 4, 8))
    expert.loss(torch.randn(2, 5, 2), observation, None, torch.randn(2, 3)).sum().backward()
    assert [name for name, parameter in expert.named_parameters() if parameter.grad is None] == []


def test_it_works_without_a_state() -> None:
    expert = make_expert(state_dim=None)
    assert expert.act(ObservationTokens(torch.randn(2, 4, 8)), None, None).shape == (2, 5, 2)


def test_a_guide_corrects_the_velocity_of_every_step() -> None:
    expert = perturbed(make_expert(steps=4))
    times = []

    def still(chunk: Tensor, time: float, velocity: object) -> Tensor:
        times.append(time)
        return torch.zeros_like(chunk)

    noise = torch.randn(1, 5, 2)
    found = act(expert, torch.randn(1, 4, 8), noise=noise, guide=still)
    assert times == [1.0, 0.75, 0.5, 0.25]
    assert torch.equal(found, noise)


def test_a_width_that_does_not_fit_the_heads_is_refused() -> None:
    options = FlowOptions(expert_width=20, expert_heads=4)
    with pytest.raises(ValueError, match="multiple of twice expert_heads, got expert_width=20 and expert_heads=4"):
        FlowExpert.check(options, num_inference_steps=10, largest_action=1.0)
