"""Imagined frames: what the predicted codes should do, drawn by the LAQ's decoder beside unchanged actions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.policies.factory import get_policy_class

from hlrp.laq.checkpoint import load_laq
from hlrp.report.saving import save_laq
from lerobot_policy_felix_bundle.policies.common.imagination import as_video
from policy_workshop import Workshop, make_laq
from tiny_datasets import CAMERA, SIZE

KINDS = ("hlrp_vla_direct", "hlrp_action_expert_latent", "hlrp_action_expert_direct")


def imagining(workshop: Workshop, kind: str, **changes: Any) -> Any:
    return workshop.policy(kind, save_predicted_video=True, laq_checkpoint_path=str(workshop.laq), **changes).eval()


def chunk(policy: Any, batch: dict[str, Any]) -> torch.Tensor:
    torch.manual_seed(0)
    return policy.predict_action_chunk(batch)


@pytest.mark.parametrize("kind", KINDS)
def test_actions_are_the_same_with_and_without(workshop: Workshop, kind: str) -> None:
    torch.manual_seed(3)
    plain = workshop.policy(kind).eval()
    policy = imagining(workshop, kind)
    policy.load_state_dict(plain.state_dict())
    batch = workshop.batch([3, 20])
    assert torch.equal(chunk(policy, batch), chunk(plain, batch))
    assert plain.last_predicted_latents is None
    assert policy.last_predicted_latents.shape == (2, 3, 1, 2 * SIZE, SIZE)


def test_the_upper_picture_is_frame_t_and_the_lower_one_what_the_laq_makes_of_the_codes(workshop: Workshop) -> None:
    policy = imagining(workshop, "hlrp_action_expert_latent")
    batch = workshop.batch([3])
    codes = workshop.labels.codes[[3]]
    policy.predict_action_chunk(batch, codes=codes)
    now, then = policy.last_predicted_latents[:, :, 0].split(SIZE, dim=2)
    torch.testing.assert_close(now, batch[CAMERA])
    laq = load_laq(workshop.laq).model
    expected = laq.predict(batch[CAMERA][:, None, None], laq.lookup(codes[:, None])).clamp(0, 1)
    torch.testing.assert_close(then, expected[:, 0, 0])


def test_lerobot_takes_one_pair_a_chunk_and_gets_a_video_of_the_episodes_length(workshop: Workshop) -> None:
    policy = imagining(workshop, "hlrp_vla_direct", n_action_steps=2)
    batch, taken = workshop.batch([3, 20]), []
    for _ in range(4):
        policy.select_action(batch)
        if policy.last_predicted_latents is not None:
            taken.append(policy.last_predicted_latents)
            policy.last_predicted_latents = None
    video = policy.decode_predicted_latents(torch.cat(taken, dim=2))
    assert video.shape == (4, 2 * SIZE, 2 * SIZE, 3)
    assert video.dtype == torch.uint8
    assert torch.equal(video[0], video[1])


def test_a_video_keeps_colours_and_puts_environments_side_by_side() -> None:
    pairs = torch.zeros(2, 3, 1, 4, 4)
    pairs[1, 0] = 1.0
    video = as_video(pairs, repeats=3)
    assert video.shape == (3, 4, 8, 3)
    assert video[0, 0].tolist() == [[0, 0, 0]] * 4 + [[255, 0, 0]] * 4


def test_another_laq_or_none_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    other = make_laq(tmp_path / "other", seed=5)
    with pytest.raises(ValueError, match="laq_checkpoint_path"):
        workshop.policy(save_predicted_video=True)
    config = workshop.config(save_predicted_video=True, laq_checkpoint_path=str(other))
    with pytest.raises(ValueError, match=r"another LAQ|same LAQ"):
        get_policy_class("hlrp_vla_direct")(config)


def test_a_laq_that_predicts_no_pixels_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    from hlrp.laq.model import LatentActionQuantizer

    laq = load_laq(workshop.laq)
    model = LatentActionQuantizer(replace(laq.model.config, targets=("flow",)))
    folder = save_laq(model.eval(), tmp_path / "flow", cameras=[CAMERA], quality=None, extra={})
    config = workshop.config(vla_checkpoint_path=None, save_predicted_video=True, laq_checkpoint_path=str(folder))
    with pytest.raises(ValueError, match="no pixels"):
        get_policy_class("hlrp_vla_direct")(config)
