from __future__ import annotations

import pytest
import torch

from hlrp.experts.diffusion import DiffusionExpert, DiffusionExpertConfig


@pytest.mark.parametrize(("scheduler", "steps"), [("DDPM", 50), ("DDIM", 10)])
def test_it_learns_which_chunk_belongs_to_which_condition(scheduler: str, steps: int) -> None:
    torch.manual_seed(0)
    config = DiffusionExpertConfig(
        down_dims=(32,), noise_scheduler_type=scheduler, num_train_timesteps=50, num_inference_steps=steps
    )
    expert = DiffusionExpert(config, condition_dim=2, chunk_size=5, action_dim=2)
    conditions = torch.eye(2)
    chunks = torch.tensor([1.0, -1.0])[:, None, None] * torch.linspace(0, 1, 5)[:, None] * torch.ones(2)
    optimizer = torch.optim.Adam(expert.parameters(), lr=1e-3)
    for _ in range(250):
        rows = torch.randint(2, (64,))
        loss = expert.loss(chunks[rows], conditions[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = expert.denoise(conditions.repeat(8, 1)).unflatten(0, (8, 2)).mean(0)
    assert found.shape == (2, 5, 2)
    assert (found - chunks).abs().mean() < 0.3


def test_the_same_noise_gives_the_same_chunk() -> None:
    torch.manual_seed(0)
    expert = DiffusionExpert(
        DiffusionExpertConfig(down_dims=(8,), num_inference_steps=2), condition_dim=3, chunk_size=3, action_dim=2
    )
    noise, condition = torch.randn(1, 3, 2), torch.randn(1, 3)
    assert torch.equal(expert.denoise(condition, noise=noise), expert.denoise(condition, noise=noise))
