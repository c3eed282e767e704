"""What a folder that claims to be a policy of ours may not do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lerobot.policies.factory import get_policy_class

from policy_workshop import Workshop
from robot_deployment import save_policy

KIND = "hlrp_vla_direct"
PRE, POST = "policy_preprocessor.json", "policy_postprocessor.json"


@pytest.fixture
def folder(workshop: Workshop, tmp_path: Path) -> Path:
    return save_policy(workshop, tmp_path / "policy", KIND)


def load(folder: Path) -> Any:
    return get_policy_class(KIND).from_pretrained(folder)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("pipeline", [PRE, POST])
@pytest.mark.parametrize("name", ["subprocess.Popen", "os.mkdir"])
def test_a_class_that_a_pipeline_names_is_not_called(folder: Path, tmp_path: Path, pipeline: str, name: str) -> None:
    arguments = {"args": ["touch", str(tmp_path / "ran")]} if "Popen" in name else {"path": str(tmp_path / "ran")}
    steps = json.loads((folder / pipeline).read_text())["steps"]
    change(folder / pipeline, steps=[*steps, {"class": name, "config": arguments}])
    with pytest.raises(ValueError, match=rf"{pipeline}.*{name}.*is no registered processor step"):
        load(folder)
    assert not (tmp_path / "ran").exists()


def test_actions_keep_their_scale(folder: Path) -> None:
    steps = json.loads((folder / POST).read_text())["steps"]
    change(folder / POST, steps=steps[1:])
    with pytest.raises(ValueError, match="no step unnormalizer_processor"):
        load(folder)


def test_statistics_of_another_policy_are_noticed(folder: Path) -> None:
    (file,) = folder.glob("policy_postprocessor*.safetensors")
    content = bytearray(file.read_bytes())
    content[-2] ^= 0x01  # still a finite number
    file.write_bytes(content)
    with pytest.raises(ValueError, match="have different statistics"):
        load(folder)


def test_a_flipped_byte_in_the_weights_is_noticed(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-3] ^= 0xFF
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="their digests differ"):
        load(folder)


def test_a_policy_without_a_digest_still_loads(folder: Path) -> None:
    values = json.loads((folder / "foundation.json").read_text())
    del values["weights_sha256"]
    (folder / "foundation.json").write_text(json.dumps(values))
    assert load(folder).config.type == KIND


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [("type", "act", "of type 'act'"), ("surplus", 1, "surplus"), ("decoder_layers", 10**6, "decoder_layers must be")],
)
def test_a_damaged_configuration_is_one_sentence(folder: Path, entry: str, value: Any, message: str) -> None:
    change(folder / "config.json", **{entry: value})
    with pytest.raises(ValueError, match=rf"config\.json.*{message}"):
        load(folder)
