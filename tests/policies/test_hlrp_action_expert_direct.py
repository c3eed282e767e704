from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from policy_workshop import Workshop
from tiny_datasets import CAMERA

KIND = "hlrp_action_expert_direct"
KEYS = (CAMERA, "observation.state", "task")


def test_it_trains_without_latent_labels_and_chunks_may_outlast_a_label(
    workshop: Workshop, image_dataset_root: str
) -> None:
    policy = workshop.policy(KIND, chunk_size=9)
    batch = workshop.batch([3, 20])
    batch["action"] = batch["action"].repeat(1, 3, 1)[:, :9]
    batch["action_is_pad"] = batch["action_is_pad"].repeat(1, 3)[:, :9]
    loss, values = policy(batch)
    assert torch.isfinite(loss)
    assert "latent_loss" not in values


def test_the_latent_loss_needs_labels_and_says_so(workshop: Workshop, image_dataset_root: str) -> None:
    unlabelled = replace(workshop, dataset_root=image_dataset_root)
    policy = unlabelled.policy(KIND, latent_loss_weight=1.0)
    with pytest.raises(ValueError, match="hlrp-precompute-latent-codes"):
        policy(unlabelled.batch([3]))


def test_the_expert_alone_learns_when_the_backbone_is_frozen(workshop: Workshop) -> None:
    policy = workshop.policy(KIND, freeze_vla_backbone=True)
    policy(workshop.batch([3, 20]))[0].backward()
    moved = {name.split(".")[0] for name, p in policy.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"expert"}


def test_real_time_chunking_keeps_the_actions_that_are_being_executed(workshop: Workshop) -> None:
    policy = workshop.policy(KIND, num_denoising_steps=10).eval()
    assert policy.supports_rtc()
    seen = {key: workshop.batch([3])[key] for key in KEYS}
    noise, before = torch.randn(1, 4, 4), torch.full((1, 4, 4), 0.7)
    free = policy.predict_action_chunk(seen, noise=noise)
    policy.config.rtc_config = RTCConfig(enabled=True, execution_horizon=4)
    policy.init_rtc_processor()
    assert torch.equal(policy.predict_action_chunk(seen, noise=noise), free)  # nothing is being executed
    guided = policy.predict_action_chunk(seen, noise=noise, prev_chunk_left_over=before, inference_delay=2)
    assert (guided - before)[:, :2].abs().mean() < 0.5 * (free - before)[:, :2].abs().mean()
