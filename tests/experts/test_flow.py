from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hlrp.experts.flow import FlowExpert, FlowExpertConfig, Prefix


def make_expert(state_dim: int | None = 3) -> FlowExpert:
    torch.manual_seed(0)
    config = FlowExpertConfig(width=16, layers=2, heads=2)
    return FlowExpert(config, feature_dim=8, chunk_size=5, action_dim=2, state_dim=state_dim)


def stirred(expert: FlowExpert) -> FlowExpert:
    """Weights that start at zero are drawn, so that every input can reach the output."""
    with torch.no_grad():
        for parameter in expert.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return expert


def observe(expert: FlowExpert, features: Tensor, mask: Tensor | None = None, state: Tensor | None = None) -> Prefix:
    mask = torch.ones(features.shape[:2], dtype=torch.bool) if mask is None else mask
    known = torch.zeros(len(features), 3) if state is None and expert.state_dim else state
    return expert.prefix(features, mask, known)


def test_it_learns_which_chunk_belongs_to_which_features() -> None:
    expert = make_expert()
    features = torch.randn(2, 4, 8)
    chunks = torch.tensor([1.0, -1.0])[:, None, None] * torch.linspace(0, 1, 5)[:, None] * torch.tensor([1.0, 2.0])
    optimizer = torch.optim.Adam(expert.parameters(), lr=5e-3)
    for _ in range(250):
        rows = torch.randint(2, (32,))
        noise, time = torch.randn(32, 5, 2), torch.rand(32)
        loss = expert.loss(chunks[rows], observe(expert, features[rows]), noise=noise, time=time).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = expert.denoise(torch.randn(2, 5, 2), observe(expert, features), steps=10)
    assert (found - chunks).abs().mean() < 0.25


def test_the_loss_of_the_true_velocity_is_zero() -> None:
    expert = make_expert()
    actions = torch.randn(3, 5, 2)
    prefix = observe(expert, torch.randn(3, 4, 8))
    # Untrained it says no motion at all, which is right where noise and actions are the same.
    assert not expert.loss(actions, prefix, noise=actions, time=torch.rand(3)).any()


def test_masked_tokens_do_not_count_and_others_do() -> None:
    expert = stirred(make_expert())
    features = torch.randn(1, 4, 8)
    mask = torch.tensor([[False, True, True, True]])
    noise = torch.randn(1, 5, 2)

    def chunk(changed: int) -> Tensor:
        other = features.clone()
        other[0, changed] += 1
        return expert.denoise(noise, observe(expert, other, mask), steps=2)

    plain = expert.denoise(noise, observe(expert, features, mask), steps=2)
    assert torch.equal(chunk(0), plain)
    assert not torch.equal(chunk(1), plain)


def test_state_and_time_reach_the_velocity() -> None:
    expert = stirred(make_expert())
    features, noisy = torch.randn(1, 4, 8), torch.randn(1, 5, 2)
    base = expert.velocity(noisy, torch.tensor([0.5]), observe(expert, features))
    moved = expert.velocity(noisy, torch.tensor([0.5]), observe(expert, features, state=torch.ones(1, 3)))
    later = expert.velocity(noisy, torch.tensor([0.4]), observe(expert, features))
    assert not torch.equal(base, moved)
    assert not torch.equal(base, later)


def test_it_works_without_a_state() -> None:
    expert = make_expert(state_dim=None)
    assert expert.denoise(torch.randn(2, 5, 2), observe(expert, torch.randn(2, 4, 8)), steps=1).shape == (2, 5, 2)


def test_a_guide_sees_every_step_and_its_velocity_counts() -> None:
    expert = stirred(make_expert())
    times = []

    def still(chunk: Tensor, time: float, velocity: object) -> Tensor:
        times.append(time)
        return torch.zeros_like(chunk)

    noise = torch.randn(1, 5, 2)
    found = expert.denoise(noise, observe(expert, torch.randn(1, 4, 8)), steps=4, guide=still)
    assert times == [1.0, 0.75, 0.5, 0.25]
    assert torch.equal(found, noise)


def test_a_width_that_does_not_fit_the_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of twice the heads, got 3, 4 and 20"):
        FlowExpertConfig(width=20, heads=4)
