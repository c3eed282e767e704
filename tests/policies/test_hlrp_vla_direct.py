from __future__ import annotations

import logging
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hlrp.data.labels import LABELS_DIR, save_labels
from hlrp.latents import LatentActions, LatentSpec
from lerobot_policy_felix_bundle.policies.common.observations import foundation_batch
from lerobot_policy_felix_bundle.policies.hlrp_vla_direct.modeling_hlrp_vla_direct import HLRPVLADirectPolicy
from policy_workshop import SPEC, Workshop, make_foundation, make_labels, make_laq, without_digest
from tiny_datasets import CAMERA

IMAGE, STATE = CAMERA, "observation.state"


def test_the_default_configuration_builds_offline_and_says_that_it_is_untrained(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    config = workshop.config(vla_checkpoint_path=None, chunk_size=8)
    with caplog.at_level(logging.WARNING):
        HLRPVLADirectPolicy(config)
    assert "demo-size" in caplog.text


def test_the_current_frame_and_the_instruction_do_reach_the_prediction(workshop: Workshop) -> None:
    policy = workshop.policy().eval()
    batch = workshop.batch([3, 20])

    def scores(batch: dict[str, Any]) -> torch.Tensor:
        return policy.backend.loss(policy_inputs(policy, batch)).logits

    other = {**batch, IMAGE: batch[IMAGE].flip(-1)}
    assert not torch.equal(scores(batch), scores(other))
    assert not torch.equal(scores(batch), scores({**batch, "task": ["Do something else"] * 2}))


def policy_inputs(policy: HLRPVLADirectPolicy, batch: dict[str, Any]) -> Any:
    codes = torch.zeros(len(batch["index"]), SPEC.num_codes, dtype=torch.int64)
    size = policy.backend.config.image_size
    return foundation_batch(batch, policy.config.image_features, size=size, labels=LatentActions.of_codes(codes))


def test_labels_are_found_by_frame_index(workshop: Workshop, policy: HLRPVLADirectPolicy) -> None:
    index = [40, 3, 17, 91]
    assert policy.labels is not None
    found = policy.labels.label(workshop.batch(index))
    assert torch.equal(found.require_codes(), workshop.labels.codes[index])
    assert torch.equal(found.valid, workshop.labels.valid[index])
    assert not found.valid.all()


def test_labels_in_the_batch_come_first(workshop: Workshop, policy: HLRPVLADirectPolicy) -> None:
    batch = workshop.batch([3, 20])
    _, with_table = policy(batch)
    _, without_labels = policy({**batch, "latent_codes": torch.full((2, 4), -1)})
    assert with_table["code_share"] == 1.0
    assert without_labels["code_share"] == 0.0


def test_frames_without_a_label_contribute_exactly_nothing(workshop: Workshop, policy: HLRPVLADirectPolicy) -> None:
    cut = [10, 11]  # the last frames of the first episode
    loss, values = policy(workshop.batch(cut))
    loss.backward()
    assert loss.item() == 0
    assert values["code_share"] == 0
    assert all(p.grad is None or not p.grad.any() for p in policy.parameters())


def test_a_saved_policy_reloads_without_network_foundation_or_labels(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foundation = Path(shutil.copytree(workshop.foundation, tmp_path / "foundation"))
    policy = workshop.policy(vla_checkpoint_path=str(foundation)).eval()
    batch = {key: workshop.batch([3, 20])[key] for key in (IMAGE, STATE, "task")}
    actions = policy.predict_action_chunk(batch)
    policy.save_pretrained(tmp_path / "saved")
    shutil.rmtree(foundation)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a network connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    reloaded = HLRPVLADirectPolicy.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(reloaded.predict_action_chunk(batch), actions, atol=1e-6, rtol=0)
    assert {path.suffix for path in (tmp_path / "saved").rglob("*") if path.is_file()} == {".json", ".safetensors"}


def test_a_checkpoint_with_a_missing_weight_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    workshop.policy().save_pretrained(tmp_path / "saved")
    weights = load_file(tmp_path / "saved" / "model.safetensors")
    del weights["decoder.codes.codebook"]
    without_digest(tmp_path / "saved")
    save_file(weights, tmp_path / "saved" / "model.safetensors")
    with pytest.raises(ValueError, match=r"decoder\.codes\.codebook"):
        HLRPVLADirectPolicy.from_pretrained(tmp_path / "saved")


def test_labels_of_another_laq_are_refused(workshop: Workshop, tmp_path: Path) -> None:
    other = make_laq(tmp_path / "laq", seed=5)
    save_labels(make_labels(workshop.dataset_root, other), tmp_path / LABELS_DIR)
    with pytest.raises(ValueError, match="label the dataset with the same LAQ"):
        workshop.policy(latent_labels_path=str(tmp_path / LABELS_DIR))


def test_another_codebook_size_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--policy\.codebook_size=16.*codebook_size=8"):
        workshop.policy(codebook_size=16)
    spec = LatentSpec(codebook_size=16, frame_offset_s=0.4)
    other = make_foundation(tmp_path / "other", fingerprint=workshop.labels.metadata.laq_fingerprint, spec=spec)
    with pytest.raises(ValueError, match="codebook_size differs: the foundation model has 16"):
        workshop.policy(codebook_size=16, vla_checkpoint_path=str(other))


def test_a_chunk_longer_than_the_label_is_refused(workshop: Workshop) -> None:
    with pytest.raises(ValueError, match=r"chunk_size=5 is longer than the 4 frames"):
        workshop.policy(chunk_size=5)


def test_missing_labels_are_named_with_their_remedies(workshop: Workshop, image_dataset_root: Path) -> None:
    unlabelled = replace(workshop, dataset_root=image_dataset_root)
    with pytest.raises(ValueError, match="hlrp-precompute-latent-codes"):
        unlabelled.policy()(unlabelled.batch([3]))
    with pytest.raises(FileNotFoundError, match=r"not a folder of latent labels .* write the labels with hlrp-prec"):
        unlabelled.policy(latent_labels_path=str(image_dataset_root / "nowhere"))


@pytest.mark.parametrize("task", [["Move", ""], ["Move", "  "], ""])
def test_an_empty_instruction_is_refused(workshop: Workshop, policy: HLRPVLADirectPolicy, task: Any) -> None:
    batch = {**workshop.batch([3, 20]), "task": task}
    with pytest.raises(ValueError, match="non-empty instruction"):
        policy(batch)
    with pytest.raises(ValueError, match="non-empty instruction"):
        policy.predict_action_chunk(batch)


def test_a_missing_instruction_or_camera_is_refused(workshop: Workshop, policy: HLRPVLADirectPolicy) -> None:
    batch = workshop.batch([3])
    with pytest.raises(ValueError, match="no 'task'"):
        policy.predict_action_chunk({key: value for key, value in batch.items() if key != "task"})
    with pytest.raises(ValueError, match="lacks the camera"):
        policy.predict_action_chunk({key: value for key, value in batch.items() if key != IMAGE})


def test_frames_that_are_not_finite_are_refused(workshop: Workshop, policy: HLRPVLADirectPolicy) -> None:
    batch = workshop.batch([3, 20])
    batch[IMAGE] = batch[IMAGE].clone()
    batch[IMAGE][1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        policy(batch)
    with pytest.raises(ValueError, match="NaN or infinite"):
        policy.predict_action_chunk(batch)


def test_a_policy_needs_a_camera_and_an_action(workshop: Workshop) -> None:
    with pytest.raises(ValueError, match="needs a camera"):
        workshop.policy(input_features={})
    with pytest.raises(ValueError, match="needs an 'action'"):
        workshop.policy(output_features={})


def test_it_works_without_a_state(workshop: Workshop) -> None:
    policy = workshop.policy(decoder_uses_state=False).eval()
    batch = {key: workshop.batch([3])[key] for key in (IMAGE, "task")}
    assert policy.predict_action_chunk(batch).shape == (1, 4, 4)


def moved_by_a_step(policy: HLRPVLADirectPolicy, batch: dict[str, Any]) -> set[str]:
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    optimizer = torch.optim.SGD(policy.get_optim_params(), lr=0.1)
    policy(batch)[0].backward()
    optimizer.step()
    return {name for name, value in policy.state_dict().items() if not torch.equal(value, before[name])}


def test_the_vla_learns_alone_where_the_decoder_is_frozen(workshop: Workshop) -> None:
    moved = moved_by_a_step(workshop.policy(freeze_decoder=True), workshop.batch([3, 20]))
    assert moved
    assert all(name.startswith("backend.") for name in moved)


@pytest.mark.parametrize("is_frozen", [True, False])
def test_the_laqs_own_decoder_is_frozen_or_not(workshop: Workshop, is_frozen: bool) -> None:
    policy = workshop.policy(decoder="laq", laq_checkpoint_path=str(workshop.laq), freeze_laq_decoder=is_frozen)
    moved = moved_by_a_step(policy, workshop.batch([3, 20]))
    assert any(name.startswith("decoder.head.") for name in moved)
    assert any(name.startswith("decoder.trunk.") for name in moved) is not is_frozen
    assert "decoder.codebook" not in moved


def test_a_policy_with_the_laqs_decoder_acts_without_the_laq_and_from_the_current_frame(
    workshop: Workshop, tmp_path: Path
) -> None:
    laq = Path(shutil.copytree(workshop.laq, tmp_path / "laq"))
    policy = workshop.policy(decoder="laq", laq_checkpoint_path=str(laq)).eval()
    clips = workshop.batch([3, 20], 4)
    seen = {IMAGE: clips[IMAGE][:, 0], STATE: clips[STATE][:, 0], "task": clips["task"]}
    expected = policy.predict_action_chunk(seen)
    clips[IMAGE][:, 1:] = torch.rand_like(clips[IMAGE][:, 1:])
    assert torch.equal(policy.predict_action_chunk(clips), expected)
    policy.save_pretrained(tmp_path / "saved")
    shutil.rmtree(laq)
    reloaded = HLRPVLADirectPolicy.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(reloaded.predict_action_chunk(seen), expected, atol=1e-6, rtol=0)


def test_the_laqs_decoder_is_not_put_into_a_saved_policy_without_it(workshop: Workshop, tmp_path: Path) -> None:
    policy = workshop.policy()
    policy.save_pretrained(tmp_path)
    policy.config.decoder = "laq"
    with pytest.raises(ValueError, match=r"has no decoder of a LAQ; leave out --policy\.decoder=laq"):
        HLRPVLADirectPolicy.from_pretrained(tmp_path, config=policy.config)


def test_the_decoder_of_another_laq_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="same LAQ"):
        workshop.policy(decoder="laq", laq_checkpoint_path=str(make_laq(tmp_path / "laq", seed=9)))
