"""The VLA of a policy sees the cameras that it was trained on, in their order, whatever others the policy has."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.datasets.lerobot_dataset import LeRobotDatasetMetadata
from lerobot.policies.factory import get_policy_class, make_policy
from torch import Tensor

from hlrp.data.labels import LABELS_DIR, save_labels
from hlrp.foundation.checkpoint import DESCRIPTION_FILE, read_description
from lerobot_policy_felix_bundle.policies.common.observations import camera_images
from policies.lerobot_commands import pretrained, run_train, train_flags
from policy_workshop import SMALL, Workshop, make_labels
from tiny_datasets import CAMERA as TOP
from tiny_datasets import SIZE, create_dataset

WRIST, SIDE, FRONT = (f"observation.images.{name}" for name in ("wrist", "side", "front"))
STATE = "observation.state"


@pytest.fixture(params=sorted(SMALL))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def trained_on(workshop: Workshop, folder: Path, **extra: Any) -> str:
    """The workshop's foundation model as stage 2 saves it after training, with `extra` in its description."""
    shutil.copytree(workshop.foundation, folder)
    edit(folder / DESCRIPTION_FILE, extra=extra)
    return str(folder)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def features(*cameras: str) -> dict[str, PolicyFeature]:
    picture = PolicyFeature(type=FeatureType.VISUAL, shape=(3, SIZE, SIZE))
    return {**dict.fromkeys(cameras, picture), STATE: PolicyFeature(type=FeatureType.STATE, shape=(4,))}


def observation(*cameras: str) -> dict[str, Any]:
    torch.manual_seed(3)
    pictures = {camera: torch.rand(2, 3, SIZE, SIZE) for camera in cameras}
    return {**pictures, STATE: torch.randn(2, 4), "task": ["Stir the soup", "Salt the soup"]}


def seen(policy: Any, batch: dict[str, Any]) -> Tensor:
    """Images that the VLA gets."""
    return policy._vla_inputs(batch).images


def images(batch: dict[str, Any], cameras: Sequence[str]) -> Tensor:
    return camera_images(batch, cameras, (SIZE, SIZE))


def chunk(policy: Any, batch: dict[str, Any]) -> Tensor:
    torch.manual_seed(5)
    return policy.eval().predict_action_chunk(dict(batch))


@pytest.mark.parametrize("cameras", [[WRIST], [WRIST, TOP]])
def test_the_vla_sees_its_cameras_in_its_order_also_after_saving(
    workshop: Workshop, tmp_path: Path, kind: str, cameras: list[str]
) -> None:
    foundation = trained_on(workshop, tmp_path / "vla", cameras=cameras)
    policy = workshop.policy(kind, vla_checkpoint_path=foundation, input_features=features(TOP, WRIST, SIDE))
    batch = observation(TOP, WRIST, SIDE)
    assert torch.equal(seen(policy, batch), images(batch, cameras))
    assert list(policy.config.image_features) == [TOP, WRIST, SIDE]

    expected = chunk(policy, batch)
    policy.save_pretrained(tmp_path / "policy")
    shutil.rmtree(foundation)
    loaded: Any = get_policy_class(kind).from_pretrained(tmp_path / "policy")
    assert loaded.config.vla_cameras == cameras
    assert torch.equal(seen(loaded, batch), images(batch, cameras))
    assert torch.equal(chunk(loaded, batch), expected)
    assert read_description(tmp_path / "policy").cameras_in([]) == cameras  # for whoever takes the VLA from the policy


@pytest.mark.parametrize(
    ("chosen", "expected"), [(None, [WRIST]), ([SIDE, TOP], [SIDE, TOP]), ([], [TOP, WRIST, SIDE])]
)
def test_the_user_may_choose_other_cameras(
    workshop: Workshop, tmp_path: Path, chosen: list[str] | None, expected: list[str]
) -> None:
    foundation = trained_on(workshop, tmp_path / "vla", cameras=[WRIST])
    settings = {"vla_checkpoint_path": foundation, "input_features": features(TOP, WRIST, SIDE)}
    policy = workshop.policy(vla_cameras=chosen, **settings)
    batch = observation(TOP, WRIST, SIDE)
    assert torch.equal(seen(policy, batch), images(batch, expected))


def test_all_cameras_where_those_of_the_vla_are_not_known(workshop: Workshop, tmp_path: Path) -> None:
    batch = observation(TOP, WRIST)
    policy = workshop.policy(input_features=features(TOP, WRIST))
    assert torch.equal(seen(policy, batch), images(batch, [TOP, WRIST]))

    expected = chunk(policy, batch)
    policy.save_pretrained(tmp_path)  # and then as versions without the option saved it
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["vla_cameras"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    edit(tmp_path / DESCRIPTION_FILE, extra={})
    loaded = get_policy_class("hlrp_vla_direct").from_pretrained(tmp_path)
    assert torch.equal(chunk(loaded, batch), expected)


def test_an_only_camera_of_another_name_stands_for_the_trained_one(
    workshop: Workshop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    foundation = trained_on(workshop, tmp_path / "vla", cameras=[WRIST])
    with caplog.at_level(logging.WARNING):
        policy = workshop.policy(vla_checkpoint_path=foundation)
    assert f"the VLA sees {TOP}, the only camera here, in place of {WRIST}" in caplog.text
    assert policy.config.vla_cameras == [TOP]


@pytest.mark.parametrize(
    ("trained", "there"), [([WRIST, TOP], [TOP]), ([WRIST], [TOP, SIDE]), ([WRIST, TOP], [TOP, SIDE])]
)
def test_a_missing_camera_is_refused(workshop: Workshop, tmp_path: Path, trained: list[str], there: list[str]) -> None:
    foundation = trained_on(workshop, tmp_path / "vla", cameras=trained)
    expected = f"trained on {', '.join(trained)}, but this policy has {', '.join(there)}: .*--policy.vla_cameras="
    with pytest.raises(ValueError, match=expected):
        workshop.policy(vla_checkpoint_path=foundation, input_features=features(*there))


def test_a_chosen_camera_that_is_missing_is_refused(workshop: Workshop) -> None:
    with pytest.raises(ValueError, match=f"vla_cameras names {FRONT}, but this policy has {TOP}, {SIDE}"):
        workshop.policy(vla_cameras=[FRONT], input_features=features(TOP, SIDE))


def test_every_dataset_of_stage_2_may_name_its_cameras_otherwise(workshop: Workshop, tmp_path: Path) -> None:
    sources = [{"name": name, "cameras": cameras} for name, cameras in (("a", [TOP]), ("b", [WRIST]), ("c", [SIDE]))]
    foundation = trained_on(workshop, tmp_path / "vla", cameras=[TOP], sources=sources)
    found = read_description(foundation)
    assert found.cameras_in([TOP, WRIST, SIDE]) == [TOP]
    assert found.cameras_in([TOP, WRIST, SIDE], dataset="b") == [WRIST]
    assert found.cameras_in([SIDE, FRONT]) == [SIDE]
    assert found.cameras_in([FRONT]) == [TOP]
    policy = workshop.policy(vla_checkpoint_path=foundation, input_features=features(SIDE, FRONT))
    assert policy.config.vla_cameras == [SIDE]


# ---- Training ----


@pytest.fixture(scope="module")
def two_cameras(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset with two cameras, of which the first one is labelled; read only."""
    root = tmp_path_factory.mktemp("two") / "dataset"
    create_dataset(root, cameras=(TOP, WRIST), lengths=(12, 12))
    save_labels(make_labels(root, workshop.laq), root / LABELS_DIR)
    return root


def test_lerobot_trains_and_fine_tunes_with_the_cameras_of_the_vla(
    workshop: Workshop, two_cameras: Path, tmp_path: Path
) -> None:
    foundation = trained_on(workshop, tmp_path / "vla", cameras=[WRIST])
    new = ["--policy.type=hlrp_vla_direct", f"--policy.vla_checkpoint_path={foundation}"]
    for name, flags, expected in (
        ("new", [], [WRIST]),
        ("chosen", [f"--policy.vla_cameras=[{WRIST},{TOP}]"], [WRIST, TOP]),
    ):
        run_train(*new, *flags, *train_flags(two_cameras, tmp_path / name, steps=1))
        saved: Any = PreTrainedConfig.from_pretrained(pretrained(tmp_path / name))
        assert saved.vla_cameras == expected
        assert list(saved.image_features) == [TOP, WRIST]
    settings = pretrained(tmp_path / "new") / "train_config.json"
    run_train(f"--config_path={settings}", "--resume=true", "--steps=2")
    saved = PreTrainedConfig.from_pretrained(pretrained(tmp_path / "new"))
    assert saved.vla_cameras == [WRIST]

    meta = LeRobotDatasetMetadata("local/moving_square", root=two_cameras)
    saved.pretrained_path = pretrained(tmp_path / "new")
    batch = observation(TOP, WRIST)
    assert torch.equal(seen(make_policy(saved, ds_meta=meta), batch), images(batch, [WRIST]))


def test_the_decoder_of_the_laq_looks_at_the_camera_of_the_labels(
    workshop: Workshop, two_cameras: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(two_cameras, tmp_path / "dataset"))
    shutil.rmtree(root / LABELS_DIR)
    save_labels(make_labels(root, workshop.laq, camera=WRIST), root / LABELS_DIR)
    config = workshop.config(decoder="laq", laq_checkpoint_path=str(workshop.laq), input_features=features(TOP, WRIST))
    meta = LeRobotDatasetMetadata("local/moving_square", root=root)
    policy: Any = get_policy_class(config.type)(config, dataset_meta=meta)
    batch = observation(TOP, WRIST)
    assert torch.equal(policy._laq_frame(batch, (SIZE, SIZE)), images(batch, [WRIST]))
