"""A saved policy on another robot, and its VLA in another policy."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.configs.default import PeftConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.policies.factory import get_policy_class, make_policy
from safetensors.torch import load_file, save_file
from torch.utils.data import default_collate

from hlrp.commands.lerobot_training import build_training
from hlrp.data.labels import LABELS_DIR, save_labels
from hlrp.foundation.checkpoint import load_foundation
from policies.lerobot_commands import pretrained, run_train, train_flags
from policy_workshop import SMALL, Workshop, make_labels, without_digest
from robot_deployment import save_policy
from tiny_datasets import CAMERA, SIZE

STATE, ACTION = "observation.state", "action"


def record_robot(
    root: Path, *, joints: int, cameras: Sequence[str] = (CAMERA,), state: str | None = STATE, fps: int = 10
) -> Path:
    """A dataset of another robot: two episodes of noise."""
    image = {"dtype": "image", "shape": (SIZE, SIZE, 3), "names": ["height", "width", "channels"]}
    vector = {"dtype": "float32", "shape": (joints,), "names": [f"joint{i}" for i in range(joints)]}
    features: dict[str, Any] = {**dict.fromkeys(cameras, image), ACTION: vector}
    if state is not None:
        features[state] = vector
    dataset = LeRobotDataset.create("local/moving_square", fps=fps, features=features, root=root, use_videos=False)
    draw = np.random.default_rng(0)
    for task in ("Stir the soup", "Salt the soup"):
        for _ in range(12):
            frame: dict[str, Any] = {camera: draw.integers(0, 256, (SIZE, SIZE, 3), np.uint8) for camera in cameras}
            frame |= {key: draw.normal(size=joints).astype(np.float32) for key in (ACTION, state) if key is not None}
            dataset.add_frame({**frame, "task": task})
        dataset.save_episode()
    dataset.finalize()
    return root


@pytest.fixture(scope="module")
def six_joints(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset of a robot with six joints instead of four, labelled by the workshop's quantizer; read only."""
    root = record_robot(tmp_path_factory.mktemp("six") / "dataset", joints=6)
    save_labels(make_labels(root, workshop.laq), root / LABELS_DIR)
    return root


@pytest.fixture(scope="module")
def saved(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folder of a policy of a type for four joints and one camera, saved once; read only."""
    folders: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp("saved") / kind
            save_policy(workshop, folders[kind], kind)
        return folders[kind]

    return folder


@pytest.fixture(params=sorted(SMALL))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def tuned(folder: Path, root: Path, **changes: Any) -> Any:
    """The policy in `folder` as `lerobot-train --policy.path` builds it for the dataset in `root`."""
    config: Any = PreTrainedConfig.from_pretrained(folder)
    config.pretrained_path = folder
    for name, value in changes.items():
        setattr(config, name, value)
    return make_policy(config, ds_meta=LeRobotDatasetMetadata("local/moving_square", root=root))


def kept(policy: Any, folder: Path) -> set[str]:
    """Weights of a policy that are those in `folder`."""
    before = load_file(folder / "model.safetensors")
    now = policy.state_dict()
    return {name for name, value in before.items() if name in now and torch.equal(value, now[name])}


def act(policy: Any, width: int, cameras: Sequence[str] = (CAMERA,)) -> torch.Tensor:
    seen: dict[str, Any] = {camera: torch.rand(1, 3, SIZE, SIZE) for camera in cameras}
    return policy.eval().predict_action_chunk({**seen, STATE: torch.randn(1, width), "task": ["Stir the soup"]})


# ---- Another robot ----


def test_another_robot_keeps_the_vla_and_gets_a_new_head_which_the_log_names(
    saved: Any, six_joints: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = saved(kind)
    with caplog.at_level(logging.WARNING):
        policy = tuned(folder, six_joints)
    said = [record.getMessage() for record in caplog.records if "started anew" in record.getMessage()]
    assert len(said) == 1
    assert "action values 4 -> 6; state values 4 -> 6" in said[0]
    assert policy.action_modules[0] in said[0].split("started anew are")[1]
    weights = load_file(folder / "model.safetensors")
    vla = {name for name in weights if name.startswith("backend.")}
    assert vla <= kept(policy, folder)
    assert kept(policy, folder) - vla  # a layer of the head that fits is kept too
    assert act(policy, 6).shape == (1, policy.config.chunk_size, 6)
    assert policy.config.input_features[STATE].shape == (6,)


def test_lerobot_fine_tunes_on_another_robot_with_its_statistics_and_resumes(
    saved: Any, six_joints: Path, tmp_path: Path
) -> None:
    run_train(f"--policy.path={saved('hlrp_vla_direct')}", *train_flags(six_joints, tmp_path / "out", steps=1))
    folder = pretrained(tmp_path / "out")
    (statistics,) = (load_file(path) for path in folder.glob("policy_preprocessor*.safetensors"))
    assert [len(statistics[f"{name}.mean"]) for name in (ACTION, STATE)] == [6, 6]
    assert act(get_policy_class("hlrp_vla_direct").from_pretrained(folder), 6).shape == (1, 4, 6)
    run_train(f"--config_path={folder / 'train_config.json'}", "--resume=true", "--steps=2")
    assert (tmp_path / "out" / "checkpoints" / "000002").is_dir()


def test_a_head_is_never_started_anew_without_training(saved: Any, kind: str) -> None:
    config: Any = PreTrainedConfig.from_pretrained(saved(kind))
    config.output_features = {ACTION: PolicyFeature(type=FeatureType.ACTION, shape=(6,))}
    with pytest.raises(ValueError, match=r"action values 4 -> 6.*started anew only in training; fine-tune with"):
        get_policy_class(kind).from_pretrained(saved(kind), config=config)


def test_a_resumed_run_starts_no_head_anew(saved: Any, six_joints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lerobot-train", "--resume=true"])
    with pytest.raises(ValueError, match="a resumed run goes on as it was"):
        tuned(saved("hlrp_vla_direct"), six_joints)


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("hlrp_vla_direct", {"labelled_fraction": 0.5}),
        ("hlrp_action_expert_direct", {"freeze_vla": True}),
        ("hlrp_action_expert_latent", {"chunk_size": 3}),
        ("hlrp_vla", {"optimizer_lr": 1.0}),
        ("hlrp_diffusion", {"labelled_episodes": [1], "prediction_type": "sample"}),
    ],
)
def test_a_resumed_run_keeps_its_settings(
    saved: Any, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, kind: str, other: dict[str, Any]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lerobot-train", "--resume=true"])
    tuned(saved(kind), workshop.dataset_root, gradient_checkpointing=True)
    with pytest.raises(ValueError, match="a resumed run keeps the settings it was started with") as refused:
        tuned(saved(kind), workshop.dataset_root, **other)
    assert all(f"--policy.{name}={value} (was" in str(refused.value) for name, value in other.items())


def test_a_run_that_its_file_resumes_keeps_its_settings_without_the_flag(
    saved: Any, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "train_config.json"
    file.write_text(json.dumps({"resume": True}))
    monkeypatch.setattr(sys, "argv", ["lerobot-train", f"--config_path={file}", "--policy.action_loss_weight=3"])
    with pytest.raises(ValueError, match=r"--policy\.action_loss_weight=3 \(was 1"):
        tuned(saved("hlrp_vla_direct"), workshop.dataset_root, action_loss_weight=3)


@pytest.mark.parametrize("choice", [{"labelled_fraction": 0.5}, {"labelled_episodes": [1]}], ids=["share", "numbers"])
def test_a_saved_choice_of_labelled_frames_holds_until_another_is_made_and_the_log_says_so(
    workshop: Workshop, six_joints: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, choice: dict[str, Any]
) -> None:
    (name,) = choice
    workshop.policy(**choice).save_pretrained(tmp_path)
    assert len(tuned(tmp_path, six_joints).action_labels.known.unique()) == 2
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert sum(f"{name}={choice[name]} is the choice saved in {tmp_path}" in message for message in said) == 1
    caplog.clear()
    other = {"labelled_fraction": 0.5} if name == "labelled_episodes" else {"labelled_episodes": [0]}
    anew = tuned(tmp_path, six_joints, **other)
    assert getattr(anew.config, name) != choice[name]
    assert "is the choice saved" not in caplog.text


def test_a_saved_chunk_that_another_frame_rate_makes_too_long_is_told_a_length(
    saved: Any, workshop: Workshop, tmp_path: Path
) -> None:
    root = record_robot(tmp_path / "dataset", joints=4, fps=5)
    save_labels(make_labels(root, workshop.laq), root / LABELS_DIR)
    with pytest.raises(ValueError, match=r"latent action spans at 5 fps; set --policy\.chunk_size=2 or less"):
        tuned(saved("hlrp_vla_direct"), root)


def test_a_weight_that_is_missing_is_not_started_anew_where_the_robot_is_the_same(
    workshop: Workshop, tmp_path: Path
) -> None:
    workshop.policy().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["decoder.head.layers.0.weight"]
    without_digest(tmp_path)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"decoder\.head\.layers\.0\.weight"):
        tuned(tmp_path, workshop.dataset_root)


def test_a_damaged_vla_is_refused_on_another_robot_too(workshop: Workshop, six_joints: Path, tmp_path: Path) -> None:
    workshop.policy().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in weights if name.startswith("backend."))
    del weights[lost]
    without_digest(tmp_path)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="do not fit its architecture"):
        tuned(tmp_path, six_joints)


def test_a_new_head_that_nothing_would_train_is_refused(saved: Any, six_joints: Path) -> None:
    with pytest.raises(
        ValueError, match=r"would be started anew and stay untrained; leave out --policy\.freeze_decoder"
    ):
        tuned(saved("hlrp_vla_direct"), six_joints, freeze_decoder=True)


def test_another_length_of_the_chunk_starts_what_depends_on_it_anew(
    saved: Any, workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        policy = tuned(saved("hlrp_action_expert_direct"), workshop.dataset_root, chunk_size=7, n_action_steps=1)
    assert "(chunk_size 4 -> 7): started anew are expert;" in caplog.text
    assert act(policy, 4).shape == (1, 7, 4)


def test_a_robot_without_a_state_gets_a_head_without_it(saved: Any, tmp_path: Path) -> None:
    root = record_robot(tmp_path / "dataset", joints=4, state=None)
    policy = tuned(saved("hlrp_action_expert_direct"), root)
    assert policy.expert.from_state is None
    assert policy.eval().predict_action_chunk({CAMERA: torch.rand(1, 3, SIZE, SIZE), "task": "Go"}).shape == (1, 4, 4)


def test_an_image_encoder_stays_with_its_camera(workshop: Workshop, tmp_path: Path) -> None:
    kind, cameras = "hlrp_action_expert_latent", ("observation.images.left", "observation.images.right")
    picture = PolicyFeature(type=FeatureType.VISUAL, shape=(3, SIZE, SIZE))
    state = PolicyFeature(type=FeatureType.STATE, shape=(4,))
    policy = workshop.policy(kind, input_features={**dict.fromkeys(cameras, picture), STATE: state})
    policy.save_pretrained(tmp_path / "saved")
    root = record_robot(tmp_path / "dataset", joints=4, cameras=cameras[1:])
    fewer = tuned(tmp_path / "saved", root)
    assert list(fewer.config.image_features) == [cameras[1]]
    for name, value in policy.image_encoders[1].state_dict().items():
        assert torch.equal(fewer.image_encoders[0].state_dict()[name], value), name
    assert act(fewer, 4, cameras[1:]).shape == (1, 4, 4)


def test_cameras_of_other_names_are_taken_where_the_features_are_left_open(saved: Any, tmp_path: Path) -> None:
    cameras = ("observation.images.front", "observation.images.wrist")
    root = record_robot(tmp_path / "dataset", joints=4, cameras=cameras)
    for kind in ("hlrp_vla_direct", "hlrp_action_expert_latent"):
        policy = tuned(saved(kind), root, input_features=None)
        assert act(policy, 4, cameras).shape == (1, 4, 4)


def test_a_state_of_another_width_is_refused_in_a_sentence(policy: Any) -> None:
    with pytest.raises(ValueError, match=r"'observation\.state' has 6 values, and this policy was trained with 4"):
        act(policy, 6)


def test_adapters_trained_on_another_robot_act_there(
    saved: Any, six_joints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    policy = tuned(saved("hlrp_vla_direct"), six_joints).wrap_with_peft(peft_cli_overrides=asdict(PeftConfig(r=2)))
    policy.save_pretrained(tmp_path)
    policy.config.save_pretrained(tmp_path)
    config: Any = PreTrainedConfig.from_pretrained(tmp_path)
    config.pretrained_path = tmp_path
    loaded = make_policy(config, ds_meta=LeRobotDatasetMetadata("local/moving_square", root=six_joints))
    torch.manual_seed(0)
    expected = act(policy, 6)
    torch.manual_seed(0)
    torch.testing.assert_close(act(loaded, 6), expected, atol=1e-6, rtol=0)
    third = LeRobotDatasetMetadata("local/moving_square", root=record_robot(tmp_path / "third", joints=3))
    with pytest.raises(ValueError, match=r"action values 6 -> 3.*adapters do not move on"):
        make_policy(config, ds_meta=third)


# ---- Other names in the dataset ----

JOINTS, FRONT = "observation.joints", "observation.images.front"
NAMES = f"--rename_map={json.dumps({JOINTS: STATE, FRONT: CAMERA})}"


@pytest.fixture(scope="module")
def other_names(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset of a robot with six joints, whose state and camera have other names; read only."""
    root = record_robot(tmp_path_factory.mktemp("names") / "dataset", joints=6, cameras=(FRONT,), state=JOINTS)
    save_labels(make_labels(root, workshop.laq, camera=FRONT), root / LABELS_DIR)
    return root


def test_a_state_of_another_name_is_normalized_by_its_statistics(saved: Any, other_names: Path) -> None:
    flags = train_flags(other_names, other_names.parent / "out", steps=1)
    training = build_training([f"--policy.path={saved('hlrp_vla_direct')}", *flags, NAMES])
    states = training.preprocessor(default_collate([training.dataset[i] for i in range(24)]))[STATE]
    torch.testing.assert_close(states.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(states.std(0, correction=0), torch.ones(6), atol=1e-5, rtol=0)


def test_a_state_without_statistics_is_refused(saved: Any, other_names: Path) -> None:
    with pytest.raises(ValueError, match=r"no statistics of 'observation\.state'.*--rename_map.*decoder_uses_state"):
        tuned(saved("hlrp_vla_direct"), other_names)


def test_a_state_of_another_name_is_checked(
    saved: Any, other_names: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["lerobot-train", NAMES])
    root = Path(shutil.copytree(other_names, tmp_path / "dataset"))
    path = root / "data" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(path)
    joints = np.stack(table[JOINTS].to_numpy())
    joints[3] = np.nan
    column = pa.array(list(joints), table.schema.field(JOINTS).type)
    pq.write_table(table.set_column(table.schema.get_field_index(JOINTS), table.schema.field(JOINTS), column), path)
    with pytest.raises(ValueError, match=r"'observation\.joints' is NaN or infinite in 1 of the 24 frames"):
        tuned(saved("hlrp_vla_direct"), root)


def test_two_columns_of_one_name_are_refused(saved: Any, six_joints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lerobot-train", f"--rename_map={json.dumps({CAMERA: STATE})}"])
    with pytest.raises(ValueError, match=r"are both called 'observation\.state'"):
        tuned(saved("hlrp_vla_direct"), six_joints)


# ---- The VLA of a policy in another policy ----


@pytest.mark.parametrize(
    ("kind", "next_kind"),
    [("hlrp_vla_direct", "hlrp_action_expert_direct"), ("hlrp_action_expert_latent", "hlrp_vla_direct")],
)
def test_a_vla_moves_on_from_policy_to_policy(workshop: Workshop, tmp_path: Path, kind: str, next_kind: str) -> None:
    first = workshop.policy(kind)
    with torch.no_grad():
        for p in first.backend.parameters():
            p.add_(0.02 * torch.randn_like(p))
    first.save_pretrained(tmp_path / "policy")
    second = workshop.policy(next_kind, vla_checkpoint_path=str(tmp_path / "policy"))
    for name, value in first.backend.state_dict().items():
        assert torch.equal(second.backend.state_dict()[name], value), name
    assert second.config.laq_fingerprint == workshop.labels.metadata.laq_fingerprint
    alone = load_foundation(tmp_path / "policy")
    assert alone.description.laq_fingerprint == workshop.labels.metadata.laq_fingerprint
    assert all(torch.equal(alone.backend.state_dict()[name], v) for name, v in first.backend.state_dict().items())


def test_a_vla_of_other_codes_is_refused_from_a_policys_folder_too(workshop: Workshop, tmp_path: Path) -> None:
    workshop.policy(laq_fingerprint=None).save_pretrained(tmp_path / "policy")
    description = tmp_path / "policy" / "foundation.json"
    description.write_text(description.read_text().replace(workshop.labels.metadata.laq_fingerprint, "0" * 16))
    with pytest.raises(ValueError, match="label the dataset with the same LAQ"):
        workshop.policy(vla_checkpoint_path=str(tmp_path / "policy"))


def test_a_folder_around_a_policys_is_told_which_one_to_name(saved: Any, workshop: Workshop, tmp_path: Path) -> None:
    inner = tmp_path / "checkpoints" / "last" / "pretrained_model"
    inner.parent.mkdir(parents=True)
    inner.symlink_to(saved("hlrp_vla_direct"))
    with pytest.raises(FileNotFoundError, match=f"there is a policy in {inner}, name that folder"):
        workshop.policy(vla_checkpoint_path=str(tmp_path))


@pytest.mark.parametrize("name", ["vla_checkpoint_path", "vla_model_name"])
def test_a_vla_that_a_saved_policy_would_not_take_is_refused(saved: Any, workshop: Workshop, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=elsewhere has no effect on a saved policy"):
        tuned(saved("hlrp_vla_direct"), workshop.dataset_root, **{name: "elsewhere"})


def test_a_policy_of_another_type_is_refused_and_told_how_to_move_on(saved: Any, workshop: Workshop) -> None:
    config = workshop.config("hlrp_action_expert_direct")
    with pytest.raises(ValueError, match=r"holds a policy of type hlrp_vla_direct.*--policy\.vla_checkpoint_path="):
        get_policy_class(config.type).from_pretrained(saved("hlrp_vla_direct"), config=config)
