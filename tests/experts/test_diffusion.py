from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hlrp.experts.diffusion import DiffusionExpert, DiffusionOptions
from hlrp.experts.interface import ExpertSizes, ObservationTokens


def make_expert(options: DiffusionOptions, *, steps: int) -> DiffusionExpert:
    torch.manual_seed(0)
    sizes = ExpertSizes(chunk_size=5, action_dim=2, feature_dim=1, num_tokens=2)
    return DiffusionExpert(options, sizes, num_inference_steps=steps)


def observed(conditions: Tensor) -> ObservationTokens:
    return ObservationTokens(conditions[..., None])


@pytest.mark.parametrize(("scheduler", "steps"), [("DDPM", 50), pytest.param("DDIM", 10, marks=pytest.mark.slow)])
def test_it_learns_which_chunk_belongs_to_which_condition(scheduler: str, steps: int) -> None:
    options = DiffusionOptions(
        down_dims=(32,), noise_scheduler_type=scheduler, num_train_timesteps=50, prediction_type="epsilon"
    )
    expert = make_expert(options, steps=steps)
    conditions = torch.eye(2)
    chunks = torch.tensor([1.0, -1.0])[:, None, None] * torch.linspace(0, 1, 5)[:, None] * torch.ones(2)
    optimizer = torch.optim.Adam(expert.parameters(), lr=1e-3)
    for _ in range(250):
        rows = torch.randint(2, (64,))
        loss = expert.loss(chunks[rows], observed(conditions[rows]), None, None).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = expert.act(observed(conditions.repeat(8, 1)), None, None).unflatten(0, (8, 2)).mean(0)
    assert found.shape == (2, 5, 2)
    assert (found - chunks).abs().mean() < 0.3


def test_noise_draws_are_like_copies_of_the_samples() -> None:
    expert = make_expert(DiffusionOptions(down_dims=(8,)), steps=2)
    chunks, conditions = torch.randn(3, 5, 2), torch.randn(3, 2)
    torch.manual_seed(1)
    drawn = expert.loss(chunks, observed(conditions), None, None, draws=2)
    torch.manual_seed(1)
    copied = expert.loss(chunks.repeat_interleave(2, 0), observed(conditions.repeat_interleave(2, 0)), None, None)
    torch.testing.assert_close(drawn, copied.unflatten(0, (3, 2)).mean(1))


def test_the_same_noise_gives_the_same_chunk() -> None:
    expert = make_expert(DiffusionOptions(down_dims=(8,)), steps=2)
    noise, observation = torch.randn(1, 5, 2), observed(torch.randn(1, 2))
    assert torch.equal(
        expert.act(observation, None, None, noise=noise), expert.act(observation, None, None, noise=noise)
    )
