"""Settings of a `lerobot-train` command that a policy reads from the command line and the file it names."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hub_cache import cache_model
from lerobot_policy_felix_bundle.policies.common.run_settings import is_resumed, rename_map

FRONT, TOP, WRIST = (f"observation.images.{name}" for name in ("front", "top", "wrist"))


def command(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    monkeypatch.setattr(sys, "argv", ["lerobot-train", *flags])


@pytest.mark.parametrize("given", ["true", "True", "yes", "on"])
def test_a_run_is_resumed_by_what_draccus_reads_as_true(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    command(monkeypatch, f"--resume={given}", "--steps=2")
    assert is_resumed()
    command(monkeypatch, "--resume", given)
    assert is_resumed()


@pytest.mark.parametrize("given", ["false", "False", "FALSE", "no", "off"])
def test_a_run_is_not_resumed_by_what_draccus_reads_as_false(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    command(monkeypatch, "--resume=true", f"--resume={given}")  # the last one counts
    assert not is_resumed()


@pytest.mark.parametrize("name", ["train_config.json", "run.yaml"])
def test_the_file_of_a_resumed_run_resumes_it_without_a_flag(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    file.write_text(json.dumps({"resume": True, "rename_map": {FRONT: TOP}}))  # JSON is YAML, too
    command(monkeypatch, f"--config_path={file}")
    assert is_resumed()
    command(monkeypatch, f"--config_path={file}", "--resume=false")
    assert not is_resumed()
    command(monkeypatch, "--config_path", str(tmp_path))
    assert is_resumed() == (name == "train_config.json")
    file.write_text(json.dumps({"resume": False}))
    command(monkeypatch, f"--config_path={file}")
    assert not is_resumed()


@pytest.mark.parametrize("place", [".", "checkpoints/000010/pretrained_model"])
def test_a_repository_on_the_hub_says_so_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str) -> None:
    for folder, resume in (("checkpoints/000002/pretrained_model", False), (place, True)):
        (tmp_path / "model" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / folder / "train_config.json").write_text(json.dumps({"resume": resume}))
    command(monkeypatch, f"--config_path={cache_model(tmp_path / 'model', 'me/run', tmp_path / 'cache', monkeypatch)}")
    assert is_resumed()
    command(monkeypatch, "--config_path=me/nowhere")
    assert not is_resumed()


def test_names_are_mapped_by_the_file_and_by_the_flag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "train_config.json"
    file.write_text(json.dumps({"rename_map": {FRONT: TOP, WRIST: TOP}}))
    command(monkeypatch, f"--config_path={file}", f"--rename_map={json.dumps({WRIST: FRONT, 'action': 'move'})}")
    assert rename_map() == {FRONT: TOP, WRIST: FRONT}  # LeRobot renames observations alone
    command(monkeypatch)
    assert rename_map() == {}
