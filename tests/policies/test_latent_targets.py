"""Where a policy's latent targets come from, and that no later frame reaches what it does."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hlrp.data.labels import LABELS_DIR, save_labels
from hlrp.latents import LatentSpec
from hub_cache import cache_model
from policy_workshop import BACKEND_CONFIGS, SMALL, SPEC, Workshop, make_foundation, make_labels, make_laq
from tiny_datasets import CAMERA

STATE = "observation.state"
OFFSET = 4
"""Frames that the quantizer looks ahead."""


@pytest.fixture(scope="session")
def foundations(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("foundations")
    fingerprint = workshop.labels.metadata.laq_fingerprint
    return {name: make_foundation(folder / name, fingerprint=fingerprint, backend=name) for name in BACKEND_CONFIGS}


def online(workshop: Workshop, **changes: Any) -> dict[str, Any]:
    return {
        "latent_targets": "online",
        "laq_checkpoint_path": str(workshop.laq),
        "teacher_offsets": (OFFSET,),
        **changes,
    }


def act(policy: Any, batch: dict[str, Any]) -> torch.Tensor:
    torch.manual_seed(0)
    return policy.predict_action_chunk(batch)


def test_vla_and_laq_load_by_their_names_on_the_hub(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    vla = cache_model(workshop.foundation, "someone/vla", tmp_path / "cache", monkeypatch)
    laq = cache_model(workshop.laq, "someone/laq", tmp_path / "cache", monkeypatch)
    caplog.set_level(logging.INFO)
    policy = workshop.policy(vla_checkpoint_path=vla, **online(workshop, laq_checkpoint_path=laq))
    assert policy.config.laq_fingerprint == workshop.labels.metadata.laq_fingerprint
    assert any(
        f"an offset of {SPEC.frame_offset_s:g} s is {OFFSET} frames at 10 fps" in line for line in caplog.messages
    )
    assert workshop.policy(decoder="laq", laq_checkpoint_path=laq).backend is not None


@pytest.mark.parametrize("source", ["precomputed", "online"])
@pytest.mark.parametrize("backend", sorted(BACKEND_CONFIGS))
@pytest.mark.parametrize("kind", sorted(SMALL))
def test_nothing_later_than_the_current_frame_reaches_the_action(
    workshop: Workshop, foundations: dict[str, Path], kind: str, backend: str, source: str
) -> None:
    settings = online(workshop) if source == "online" else {}
    settings = {"latent_loss_weight": 1.0, "vla_checkpoint_path": str(foundations[backend]), **settings}
    policy = workshop.policy(kind, **settings)
    clips = workshop.batch([3, 20, 40], OFFSET)
    assert clips[CAMERA].shape[1] == 2
    policy(clips)  # a step of training in between changes nothing of this
    policy.eval()
    alone = {CAMERA: clips[CAMERA][:, 0], STATE: clips[STATE][:, 0], "task": clips["task"]}
    tampered = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in clips.items()}
    tampered[CAMERA][:, 1:] = torch.rand_like(clips[CAMERA][:, 1:])
    tampered[STATE][:, 1:] += 5
    tampered["action"] = torch.randn_like(clips["action"])
    tampered |= {
        "index": clips["index"].flip(0),
        f"{CAMERA}_is_pad": ~clips[f"{CAMERA}_is_pad"],
        "latent_codes": torch.randint(0, 8, (3, 4)),
        "latent_valid": torch.zeros(3, dtype=torch.bool),
    }
    expected = act(policy, alone)
    assert torch.equal(act(policy, clips), expected)
    assert torch.equal(act(policy, tampered), expected)


def test_online_labels_are_those_that_would_have_been_written(workshop: Workshop) -> None:
    policy = workshop.policy(**online(workshop))
    index = [0, 3, 9, 11, 20, 40]
    found = policy.labels.label(workshop.batch(index, OFFSET))
    written = workshop.labels
    assert torch.equal(found.valid, written.valid[index])
    assert not found.valid.all()
    assert torch.equal(found.codes[found.valid], written.codes[index][found.valid])


def test_a_renamed_camera_leaves_clips_cut_by_the_end_of_an_episode_unlabelled(workshop: Workshop) -> None:
    policy = workshop.policy(**online(workshop))
    batch = workshop.batch([0, 9, 11], OFFSET)
    # A rename_map renames the pictures of a camera, and not what says which of them lie outside the episode.
    renamed = {key.replace(f"{CAMERA}_is_pad", "observation.images.front_is_pad"): batch[key] for key in batch}
    del renamed[f"{STATE}_is_pad"]
    assert policy.labels.label(renamed).valid.tolist() == workshop.labels.valid[[0, 9, 11]].tolist()
    assert policy(renamed)[1]["code_share"] < 1


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_online_and_precomputed_labels_give_the_same_loss(workshop: Workshop, kind: str) -> None:
    weights = {"latent_loss_weight": 1.0}
    written = workshop.policy(kind, **weights).eval()
    taught = workshop.policy(kind, **weights, **online(workshop)).eval()
    taught.load_state_dict(written.state_dict())
    losses = []
    for policy in (written, taught):
        torch.manual_seed(0)
        losses.append(policy(workshop.batch([3, 20, 40, 11], OFFSET))[0])
    assert losses[0] > 0
    torch.testing.assert_close(losses[0], losses[1])


def test_a_teacher_of_three_frames_gives_two_transitions(workshop: Workshop, tmp_path: Path) -> None:
    spec = LatentSpec(num_frames=3, frame_offset_s=0.2)
    laq = make_laq(tmp_path / "laq", spec=spec)
    fingerprint = make_labels(workshop.dataset_root, laq).metadata.laq_fingerprint
    foundation = make_foundation(tmp_path / "foundation", fingerprint=fingerprint, spec=spec)
    settings = online(workshop, laq_checkpoint_path=str(laq), teacher_offsets=(2, 4))
    policy = workshop.policy(vla_checkpoint_path=str(foundation), **settings)
    assert policy.config.observation_delta_indices == [0, 2, 4]
    loss, values = policy(workshop.batch([3, 20], 2, 4))
    assert values["code_share"] == 1
    loss.backward()
    assert torch.isfinite(loss)


def test_a_policy_taught_online_acts_without_its_teacher(workshop: Workshop, tmp_path: Path) -> None:
    policy = workshop.policy(**online(workshop)).eval()
    assert not any("teacher" in name or "laq" in name for name in policy.state_dict())
    policy.save_pretrained(tmp_path / "policy")
    settings = (tmp_path / "policy" / "config.json").read_text().replace(str(workshop.laq), "/nowhere")
    (tmp_path / "policy" / "config.json").write_text(settings)
    seen = {key: workshop.batch([3])[key] for key in (CAMERA, STATE, "task")}
    torch.testing.assert_close(act(type(policy).from_pretrained(tmp_path / "policy"), seen), act(policy, seen))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"latent_targets": "guessed"}, "latent_targets must be precomputed or online, got 'guessed'"),
        ({"teacher_offsets": ()}, "needs --policy.teacher_offsets"),
        ({"teacher_offsets": (4, 7)}, r"multiples, such as \[8\] or \[8, 16\]; got \[4, 7\]"),
        ({"teacher_offsets": (3,)}, r"which is \[4\] frames at 10 fps; set --policy.teacher_offsets=\[4\]"),
        ({"laq_checkpoint_path": None}, "name it with laq_checkpoint_path"),
        ({"teacher_cameras": ["observation.images.wrist"]}, "name what it shall look at with --policy.teacher_cameras"),
        ({"latent_targets": "precomputed"}, "teacher_offsets are for --policy.latent_targets=online"),
    ],
)
def test_wrong_choices_of_a_teacher_are_refused(workshop: Workshop, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        workshop.policy(**{**online(workshop), **wrong})


def test_another_teacher_than_the_foundation_models_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="same LAQ"):
        workshop.policy(**online(workshop, laq_checkpoint_path=str(make_laq(tmp_path / "laq", seed=7))))


def test_a_batch_without_clips_is_refused_online(workshop: Workshop) -> None:
    with pytest.raises(ValueError, match=r"online labels need 2 frames of 'observation\.images\.top'"):
        workshop.policy(**online(workshop))(workshop.batch([3]))


@pytest.mark.parametrize("source", ["precomputed", "online"])
def test_a_vla_that_learns_vectors_gets_them(workshop: Workshop, tmp_path: Path, source: str) -> None:
    root = workshop.dataset_root
    foundation = make_foundation(
        tmp_path / "foundation",
        fingerprint=workshop.labels.metadata.laq_fingerprint,
        backend="smol_latent_head",
        vector_loss_weight=1.0,
    )
    labels = save_labels(make_labels(root, workshop.laq), tmp_path / LABELS_DIR)
    settings = online(workshop) if source == "online" else {"latent_labels_path": str(labels)}
    policy = workshop.policy(vla_checkpoint_path=str(foundation), **settings)
    loss, _ = policy(workshop.batch([3, 20], OFFSET))
    loss.backward()
    assert torch.isfinite(loss)
    assert policy.labels.label(workshop.batch([3, 20], OFFSET)).vectors.shape == (2, SPEC.num_codes, SPEC.code_dim)


def test_a_policy_without_a_checkpoint_takes_the_geometry_of_its_labels(workshop: Workshop) -> None:
    for backend in BACKEND_CONFIGS:
        policy = workshop.policy(vla_checkpoint_path=None, vla_backend=backend)
        assert policy.backend.backend_type == backend
        assert replace(policy.backend.spec) == workshop.labels.metadata.spec


def test_another_backend_than_the_checkpoints_is_refused(workshop: Workshop) -> None:
    with pytest.raises(ValueError, match="vla_backend=smol_latent_head differs from the qwen3vl_chat"):
        workshop.policy(vla_backend="smol_latent_head")
    with pytest.raises(ValueError, match="vla_backend must be one of qwen3vl_chat, smol_latent_head, got 'gpt'"):
        workshop.policy(vla_backend="gpt")
