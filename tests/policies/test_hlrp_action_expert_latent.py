from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.policies.factory import make_policy
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from policy_workshop import Workshop
from tiny_datasets import CAMERA

KIND = "hlrp_action_expert_latent"
KEYS = (CAMERA, "observation.state", "task")


@pytest.fixture(params=["diffusion", "flow"])
def policy(request: pytest.FixtureRequest, workshop: Workshop) -> Any:
    torch.manual_seed(0)
    small = {"expert_width": 16, "expert_layers": 1, "expert_heads": 2} if request.param == "flow" else {}
    return workshop.policy(KIND, expert=request.param, **small)


def observation(workshop: Workshop, index: list[int]) -> dict[str, Any]:
    batch = workshop.batch(index)
    return {key: batch[key] for key in KEYS}


def trained(policy: Any, workshop: Workshop) -> Any:
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=3e-3)
    for _ in range(5):
        policy(workshop.batch(list(range(8))))[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    return policy.eval()


def test_codes_picture_and_state_decide_the_chunk(workshop: Workshop, policy: Any) -> None:
    policy = trained(policy, workshop)
    observed, noise = observation(workshop, [3]), torch.randn(1, 4, 4)

    def chunk(code: int = 0, **changes: Any) -> torch.Tensor:
        codes = torch.full((1, 4), code)
        return policy.predict_action_chunk({**observed, **changes}, codes=codes, noise=noise)

    base = chunk()
    assert torch.equal(chunk(), base)
    assert not torch.equal(chunk(code=5), base)
    assert not torch.equal(chunk(**{CAMERA: observed[CAMERA].flip(-1)}), base)
    assert not torch.equal(chunk(**{"observation.state": observed["observation.state"] + 1}), base)


def test_the_plan_is_kept_for_as_many_chunks_as_asked(workshop: Workshop, policy: Any) -> None:
    policy.config.replan_every = 2
    policy.eval().reset()
    plans = 0
    predict = policy.backend.predict

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal plans
        plans += 1
        return predict(*args, **kwargs)

    policy.backend.predict = counted
    observed = observation(workshop, [3])
    for _ in range(4 * policy.config.n_action_steps):  # four chunks
        policy.select_action(observed)
    assert plans == 2
    policy.reset()
    policy.select_action(observed)
    assert plans == 3
    policy.reset()
    for _ in range(4):  # as real-time chunking and the policy server ask
        policy.predict_action_chunk(observed)
    assert plans == 5
    policy.predict_action_chunk({**observed, "task": ["Do something else"]})
    assert plans == 6
    policy.predict_action_chunk(observation(workshop, [3, 20]))
    assert plans == 7


def test_predicted_codes_take_the_place_of_labels_by_schedule(workshop: Workshop) -> None:
    policy = workshop.policy(KIND, predicted_codes=1.0, predicted_codes_after=4).train()
    batch = workshop.batch(list(range(8)))
    shares = [policy(batch)[1]["predicted_share"] for _ in range(6)]
    assert shares[4:] == [1.0, 1.0]
    assert shares[0] < 1
    assert int(policy.steps_trained) == 6
    assert policy.eval()(batch)[1]["predicted_share"] == 0
    assert int(policy.steps_trained) == 6


@pytest.mark.parametrize(("flags", "steps"), [([], 0), (["--resume=true"], 6)])
def test_the_schedule_of_predicted_codes_starts_anew_unless_the_run_is_resumed(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], steps: int
) -> None:
    policy = workshop.policy(KIND, predicted_codes=1.0, predicted_codes_after=1000)
    policy.steps_trained += 6
    policy.save_pretrained(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lerobot-train", *flags])
    config = PreTrainedConfig.from_pretrained(tmp_path)
    config.pretrained_path = tmp_path
    assert int(make_policy(config, ds_meta=workshop.dataset.meta).steps_trained) == steps


def test_a_chunk_need_not_be_what_the_unet_can_halve(workshop: Workshop) -> None:
    policy = workshop.policy(KIND, chunk_size=3).eval()
    batch = workshop.batch([3, 20])
    batch = {**batch, "action": batch["action"][:, :3], "action_is_pad": batch["action_is_pad"][:, :3]}
    assert torch.isfinite(policy(batch)[0])
    assert policy.predict_action_chunk(observation(workshop, [3])).shape == (1, 3, 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"expert": "mlp"}, "expert must be one of diffusion, flow"),
        ({"predicted_codes": 2.0}, "predicted_codes must be in"),
        ({"replan_every": 0}, "must be 1 or more"),
        ({"noise_draws": 0}, "noise_draws must be 1 or more"),
        ({"noise_scheduler_type": "PNDM"}, "noise_scheduler_type must be one of DDPM, DDIM"),
        ({"num_inference_steps": 200}, "num_inference_steps must be between 1 and"),
        ({"down_dims": (12,)}, "down_dims must be multiples of n_groups 8"),
    ],
)
def test_wrong_settings_are_refused(workshop: Workshop, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        workshop.policy(KIND, **wrong)


def test_more_noise_draws_make_the_loss_less_random(workshop: Workshop, policy: Any) -> None:
    batch, spread = workshop.batch(list(range(8))), {}
    for draws in (1, 64):
        policy.config.noise_draws = draws
        spread[draws] = torch.tensor([policy(batch)[1]["action_loss"] for _ in range(6)]).std()
    assert spread[64] < 0.5 * spread[1]


@pytest.mark.parametrize("expert", ["diffusion", "flow"])
def test_without_latents_the_expert_neither_asks_the_vla_nor_needs_labels(
    workshop: Workshop, image_dataset_root: Any, expert: str
) -> None:
    unlabelled = replace(workshop, dataset_root=image_dataset_root)
    policy = unlabelled.policy(KIND, expert=expert, latent_conditioning=False)
    loss, values = policy(unlabelled.batch([3, 20]))
    loss.backward()
    assert "latent_loss" not in values
    assert all(p.grad is None for p in policy.backend.parameters())
    with torch.no_grad():
        for p in policy.backend.parameters():
            p.fill_(torch.nan)
    policy.eval()
    assert torch.isfinite(policy.select_action(observation(workshop, [3]))).all()


def test_learned_code_vectors_are_trained(workshop: Workshop) -> None:
    policy = trained(workshop.policy(KIND, latent_embed_dim=6), workshop)
    assert policy.codes.codebook.shape == (4, 8, 6)
    fresh = workshop.policy(KIND, latent_embed_dim=6)
    assert not torch.equal(policy.codes.codebook, fresh.codes.codebook)


@pytest.mark.parametrize("is_earlier", [False, True])
def test_a_saved_flow_expert_acts_as_it_did_also_if_an_earlier_version_saved_it(
    workshop: Workshop, tmp_path: Path, caplog: pytest.LogCaptureFixture, is_earlier: bool
) -> None:
    policy = workshop.policy(KIND, expert="flow")
    if is_earlier:
        policy.expert.from_codes = None
    policy = trained(policy, workshop)
    policy.save_pretrained(tmp_path / "policy")
    with caplog.at_level(logging.WARNING):
        loaded = type(policy).from_pretrained(tmp_path / "policy").eval()
    assert ("it ignores the order of the codes" in caplog.text) == is_earlier
    assert loaded.state_dict().keys() == policy.state_dict().keys()
    given = {"codes": torch.tensor([[1, 2, 3, 4]]), "noise": torch.randn(1, 4, 4)}
    chunks = [each.predict_action_chunk(observation(workshop, [3]), **given) for each in (policy, loaded)]
    assert torch.equal(*chunks)


def test_the_flow_expert_continues_the_chunk_being_executed(workshop: Workshop) -> None:
    policy = trained(workshop.policy(KIND, expert="flow", rtc_config=RTCConfig(execution_horizon=4)), workshop)
    assert policy.supports_rtc()
    assert not workshop.policy(KIND, expert="diffusion").supports_rtc()
    observed, noise, before = observation(workshop, [3]), torch.randn(1, 4, 4), torch.full((1, 4, 4), 0.9)

    def chunk(**kwargs: Any) -> torch.Tensor:
        return policy.predict_action_chunk(observed, codes=torch.zeros(1, 4, dtype=torch.int64), noise=noise, **kwargs)

    free, guided = chunk(), chunk(prev_chunk_left_over=before, inference_delay=2)
    assert (guided - before)[:, :2].abs().mean() < (free - before)[:, :2].abs().mean()


def test_actions_that_are_not_bounded_do_not_suit_a_clipping_expert(workshop: Workshop) -> None:
    modes = {"ACTION": NormalizationMode.MEAN_STD}
    with pytest.raises(ValueError, match=r"clips actions to ±1, and normalized actions reach ±inf"):
        workshop.config(KIND, normalization_mapping=modes, expert="diffusion")
    assert workshop.config(KIND, normalization_mapping=modes, expert="flow").expert == "flow"


def test_pictures_are_shifted_in_training_alone(workshop: Workshop) -> None:
    policy = workshop.policy(KIND, random_shift_px=3)
    batch = workshop.batch([3])
    policy.train()
    policy.steps_trained += 1
    one = policy._image_tokens(batch).features
    policy.steps_trained += 1
    assert not torch.equal(policy._image_tokens(batch).features, one)
    policy.eval()
    assert torch.equal(policy._image_tokens(batch).features, policy._image_tokens(batch).features)
