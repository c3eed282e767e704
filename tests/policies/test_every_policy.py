"""What holds for every policy type."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore

from policy_workshop import SMALL, Workshop
from tiny_datasets import CAMERA

IMAGE, STATE = CAMERA, "observation.state"


@pytest.fixture(params=sorted(SMALL))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def chunk(policy: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Actions, from the same noise where there is noise."""
    torch.manual_seed(0)
    return policy.predict_action_chunk(batch)


def observation(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: batch[key] for key in (IMAGE, STATE, "task")}


def test_lerobot_finds_configuration_policy_and_processors(workshop: Workshop, kind: str) -> None:
    config = PreTrainedConfig.get_choice_class(kind)(device="cpu", input_features={}, output_features={})
    assert get_policy_class(kind).name == kind == config.type
    pre, post = make_pre_post_processors(config)
    assert [pre.name, post.name] == ["policy_preprocessor", "policy_postprocessor"]


def test_forward_leaves_the_batch_alone_and_logs_plain_numbers(workshop: Workshop, kind: str) -> None:
    policy = workshop.policy(kind)
    batch = workshop.batch([3, 20, 11])
    before = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    loss, values = policy(batch)
    assert batch.keys() == before.keys()
    assert all(torch.equal(v, batch[k]) if isinstance(v, torch.Tensor) else v == batch[k] for k, v in before.items())
    assert loss.requires_grad
    assert all(type(value) is float for value in values.values())


def test_reduction_none_gives_a_loss_per_sample_whose_mean_is_the_loss(workshop: Workshop, kind: str) -> None:
    policy = workshop.policy(kind).eval()
    batch = workshop.batch([3, 20])
    torch.manual_seed(0)
    per_sample, _ = policy(batch, reduction="none")
    torch.manual_seed(0)
    loss, _ = policy(batch)
    assert per_sample.shape == (2,)
    torch.testing.assert_close(per_sample.mean(), loss)


def gradients(policy: Any, batch: dict[str, Any]) -> list[torch.Tensor]:
    """Gradients of all parameters, under the same noise."""
    policy.zero_grad()
    torch.manual_seed(0)
    policy(batch)[0].backward()
    return [p.grad.clone() for p in policy.parameters() if p.grad is not None]


def test_what_stands_in_padded_steps_changes_no_gradient(workshop: Workshop, kind: str) -> None:
    policy = workshop.policy(kind).eval()
    batch = workshop.batch([3, 20])
    length = batch["action"].shape[1]
    batch["action_is_pad"] = torch.arange(length).expand(2, -1) >= length // 2
    changed = {**batch, "action": batch["action"].clone()}
    changed["action"][batch["action_is_pad"]] = torch.nan
    for one, other in zip(gradients(policy, batch), gradients(policy, changed), strict=True):
        assert torch.equal(one, other)
    batch["action_is_pad"] = torch.ones(2, length, dtype=torch.bool)
    assert policy(batch)[1]["action_loss"] == 0
    head = [p for name in policy.action_modules for p in getattr(policy, name).parameters()]
    gradients(policy, batch)
    assert all(p.grad is None or not p.grad.any() for p in head)


def test_what_stands_in_frames_without_actions_changes_no_gradient(workshop: Workshop, kind: str) -> None:
    policy = workshop.policy(kind, labelled_episodes=[0], latent_loss_weight=1.0).eval()
    batch = workshop.batch([3, 20])  # the second is of another episode
    changed = {**batch, "action": batch["action"].clone()}
    changed["action"][1] = torch.nan
    for one, other in zip(gradients(policy, batch), gradients(policy, changed), strict=True):
        assert torch.equal(one, other)


def test_the_action_head_may_learn_at_a_rate_of_its_own(workshop: Workshop, kind: str) -> None:
    policy = workshop.policy(kind, optimizer_lr=1e-5, optimizer_lr_action=1e-2)
    optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
    policy.config.get_scheduler_preset().build(optimizer, num_training_steps=100)
    of_head = {id(value) for name in policy.action_modules for value in getattr(policy, name).parameters()}
    peak = {id(value): group["initial_lr"] for group in optimizer.param_groups for value in group["params"]}
    trained = {id(value) for value in policy.parameters() if value.requires_grad}
    assert peak == {number: 1e-2 if number in of_head else 1e-5 for number in trained}
    assert of_head & trained
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(trained)
    decays = {id(value): group["weight_decay"] > 0 for group in optimizer.param_groups for value in group["params"]}
    assert decays == {id(value): value.ndim > 1 for value in policy.parameters() if value.requires_grad}


def test_a_frozen_vla_stays_what_it_is_and_the_rest_learns(workshop: Workshop, kind: str) -> None:
    policy = workshop.policy(kind, freeze_vla=True).train()
    assert not policy.backend.training
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    optimizer = torch.optim.SGD(policy.get_optim_params(), lr=0.1)
    loss, values = policy(workshop.batch([3, 20, 40]))
    loss.backward()
    optimizer.step()
    moved = {name for name, value in policy.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith("backend.") for name in moved)
    assert moved
    assert "latent_loss" not in values


def test_an_instruction_stands_in_where_none_is_named(workshop: Workshop, kind: str) -> None:
    policy = workshop.policy(kind, instruction="Move the square to the right").eval()
    seen = observation(workshop.batch([3, 20]))
    named = chunk(policy, {**seen, "task": ["Move the square to the right"] * 2})
    for task in (["", " "], None):
        assert torch.equal(chunk(policy, {**seen, "task": task}), named)
    assert torch.equal(chunk(policy, {key: value for key, value in seen.items() if key != "task"}), named)


def test_without_known_actions_the_loss_is_finite_and_actions_get_no_gradient(workshop: Workshop, kind: str) -> None:
    policy = workshop.policy(kind, labelled_episodes=[0], latent_loss_weight=1.0)
    loss, values = policy(workshop.batch([20, 30]))  # of other episodes
    loss.backward()
    assert values["action_share"] == 0
    assert torch.isfinite(loss)
    assert values["latent_loss"] > 0
    head = [p for name in policy.action_modules for p in getattr(policy, name).parameters()]
    assert all(p.grad is None or not p.grad.any() for p in head)
    assert any(p.grad is not None and p.grad.any() for p in policy.backend.parameters())
    assert policy(workshop.batch([1, 2]))[1]["action_share"] == 1


def test_training_lowers_the_loss(workshop: Workshop, kind: str) -> None:
    policy = workshop.policy(kind)
    batch = workshop.batch(list(range(0, 8)))
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss, _ = policy(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_actions_are_queued_and_forgotten_on_reset(workshop: Workshop, kind: str) -> None:
    policy = workshop.policy(kind).eval()
    seen = observation(workshop.batch([3]))
    expected = chunk(policy, seen)
    assert expected.shape == (1, policy.config.chunk_size, 4)
    torch.manual_seed(0)
    assert torch.equal(policy.select_action(seen), expected[:, 0])
    elsewhere = {**seen, STATE: seen[STATE] + 9}
    assert torch.equal(policy.select_action(elsewhere), expected[:, 1])
    policy.select_action(elsewhere)
    policy.reset()
    torch.manual_seed(0)
    assert torch.equal(policy.select_action(seen), expected[:, 0])
    assert not policy.select_action(seen).requires_grad


def test_acting_in_training_mode_changes_nothing_and_acts_as_in_evaluation(workshop: Workshop, kind: str) -> None:
    policy = workshop.policy(kind).eval()
    batch = observation(workshop.batch([3, 20]))
    expected = chunk(policy, batch)
    policy.train()
    policy.backend.eval()  # a part in another mode than the rest
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    assert torch.equal(chunk(policy, batch), expected)
    torch.manual_seed(0)
    assert torch.equal(policy.select_action(batch), expected[:, 0])
    torch.testing.assert_close(dict(policy.state_dict()), before, rtol=0, atol=0)
    assert policy.training
    assert not policy.backend.training


@pytest.mark.parametrize(
    ("kind", "half"),
    [
        ("hlrp_vla", {"torch_dtype": "bf16"}),
        ("hlrp_diffusion", {"torch_dtype": "bf16"}),
        ("hlrp_action_expert_direct", {"dtype": "bfloat16"}),
    ],
)
def test_steps_of_the_presets_size_move_the_weights_of_a_policy_in_bfloat16(
    workshop: Workshop, kind: str, half: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = workshop.policy(kind, **half, optimizer_lr=1e-5).train()
    optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
    before = {name: value.detach().clone() for name, value in policy.named_parameters()}
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):  # as accelerate does with this dtype
            loss, _ = policy(workshop.batch([3, 20, 40]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    taught = {name: value for name, value in policy.named_parameters() if value in optimizer.state}
    moved = [(value != before[name])[optimizer.state[value]["exp_avg_sq"] > 0] for name, value in taught.items()]
    assert {value.dtype for value in taught.values()} == {torch.float32}
    assert torch.cat(moved).float().mean() > 0.99

    seen = observation(workshop.batch([3]))
    assert policy.select_action(seen).dtype == torch.float32
    policy.reset()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert policy.select_action(seen).dtype == torch.float32

    policy.save_pretrained(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lerobot-train", "--resume=true"])
    resumed = get_policy_class(kind).from_pretrained(tmp_path, dataset_meta=workshop.dataset.meta)
    torch.testing.assert_close(dict(resumed.state_dict()), dict(policy.state_dict()), rtol=0, atol=0)
    acting = get_policy_class(kind).from_pretrained(tmp_path)
    assert acting.backend.model.dtype == torch.bfloat16
    assert acting.select_action(seen).dtype == torch.float32


def test_a_second_process_that_was_seeded_alike_draws_other_noise_and_shifts(workshop: Workshop, kind: str) -> None:
    policy = workshop.policy(kind, random_shift_px=4)
    batch = workshop.batch([3, 20, 40])
    state = {name: value.clone() for name, value in policy.state_dict().items()}
    losses: list[float] = []
    for rank in (0, 1):
        distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=2)
        try:
            policy.load_state_dict(state)
            torch.manual_seed(0)
            policy.train()
            losses.append(float(policy(batch)[0]))
        finally:
            distributed.destroy_process_group()
    assert losses[0] != losses[1]


def test_a_saved_policy_reloads_without_network_foundation_or_labels(
    workshop: Workshop, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foundation = Path(shutil.copytree(workshop.foundation, tmp_path / "foundation"))
    policy = workshop.policy(kind, vla_checkpoint_path=str(foundation)).eval()
    batch = observation(workshop.batch([3, 20]))
    expected = chunk(policy, batch)
    policy.save_pretrained(tmp_path / "saved")
    shutil.rmtree(foundation)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a network connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    reloaded = get_policy_class(kind).from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(chunk(reloaded, batch), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"labelled_fraction": 2.0}, "labelled_fraction must be in"),
        ({"labelled_episodes": [99]}, r"labelled_episodes has \[99\]"),
        ({"action_valid_column": "nothing"}, "has no column 'nothing'"),
        ({"labelled_fraction": 0.5, "labelled_episodes": [1]}, "in one way"),
    ],
)
def test_wrong_choices_of_labelled_frames_are_refused(
    workshop: Workshop, kind: str, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        workshop.policy(kind, **wrong)
