"""The sections `demo` and `kills` of the benchmark at scale."""

from __future__ import annotations

import os
import signal
from multiprocessing import RawValue
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scale_demo
from benchmarks.scale import BenchConfig, demo
from benchmarks.scale_kills import KillsConfig, _counter, kills
from benchmarks.scale_kills_commands import PolicyTraining
from hlrp.storage.files import write_json


def write_record(folder: Path) -> None:
    """Write what a demo that ran to its end leaves, as far as the benchmark reads it."""
    folder.mkdir(parents=True)
    stage = {"command": ["python"], "peak_gib": 1.0, "done": True}
    write_json(folder / "progress.json", {name: {**stage, "seconds": 30.0} for name in ("laq", "hlrp_vla_direct")})
    policy = {"success_rate": 0.75, "interval": [0.5, 0.9], "episodes": 20}
    write_json(folder / "report.json", {"policies": {"hlrp_vla_direct": policy}, "laq": {"probe_r2": 0.5}})


def test_a_demo_that_ended_earlier_is_read_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(tmp_path / "scale" / "demo")
    monkeypatch.setattr(scale_demo, "run_command", None)
    assert demo(BenchConfig(output=tmp_path / "scale.json")) == {
        "seconds": 60.0, "stages": {"laq": 30.0, "hlrp_vla_direct": 30.0}, "success": 0.75,
        "success_interval": [0.5, 0.9], "episodes": 20, "probe_r2": 0.5,
    }  # fmt: skip


def test_an_unfinished_demo_goes_on_and_the_quick_one_has_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []

    def run_command(module: str, *flags: str, **_: Any) -> None:
        calls.append((module, *flags))
        write_record(quick)

    monkeypatch.setattr(scale_demo, "run_command", run_command)
    quick = tmp_path / "scale" / "demo_quick"
    assert demo(BenchConfig(output=tmp_path / "scale.json", quick=True))["success"] == 0.75
    assert calls[0][:2] == ("hlrp.cli.demo", f"--output_dir={quick}")
    assert "--policy_steps=20" in calls[0]


def write_checkpoint(output: Path, step: str, *, link: bool = True) -> Path:
    """Write a checkpoint as lerobot-train does, as far as the benchmark reads it."""
    folder = output / "checkpoints" / step / "pretrained_model"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "train_config.json"):
        (folder / name).write_text(f"{name} of {step}", encoding="utf-8")
    last = output / "checkpoints" / "last"
    if link:
        last.unlink(missing_ok=True)
        last.symlink_to(step)
    return folder


def test_a_policy_is_resumed_from_its_last_whole_checkpoint_or_started_anew(tmp_path: Path) -> None:
    command, output = PolicyTraining("lerobot_train", ("--steps=6",)), tmp_path / "result"
    new = ["--steps=6", f"--output_dir={output}"]
    assert command.arguments(output) == new
    write_checkpoint(output, "000002", link=False)
    assert command.arguments(output) == new
    assert not output.exists()  # lerobot-train refuses to start in a folder that exists
    write_checkpoint(output, "000002")
    write_checkpoint(output, "000004", link=False)
    saved = output / "checkpoints" / "last" / "pretrained_model" / "train_config.json"
    assert command.arguments(output) == [f"--config_path={saved}", "--resume=true"]
    assert (output / "checkpoints" / "last").readlink() == Path("000002")


def test_policies_are_compared_by_their_weights_and_the_newest_checkpoint(tmp_path: Path) -> None:
    command = PolicyTraining("lerobot_train", ())
    for name in ("one", "two"):
        folder = write_checkpoint(tmp_path / name, "000002")
    (folder / "train_config.json").write_text("another folder", encoding="utf-8")
    assert command.content(tmp_path / "one") == command.content(tmp_path / "two")
    (folder / "model.safetensors").write_text("other weights", encoding="utf-8")
    assert command.content(tmp_path / "one") != command.content(tmp_path / "two")


def test_a_file_of_a_new_checkpoint_counts_as_half_written(tmp_path: Path) -> None:
    command, output = PolicyTraining("lerobot_train", ()), tmp_path / "result"
    write_checkpoint(output, "000002")
    before = command.half_written(tmp_path)
    assert command.half_written(tmp_path) == before
    written = write_checkpoint(output, "000004", link=False)
    assert {path.parent for path, _ in command.half_written(tmp_path) - before} == {written}


def test_the_moment_before_a_link_is_made_is_one_of_the_moments(tmp_path: Path) -> None:
    operations = RawValue("i", 0)
    count = _counter(str(tmp_path), operations, signal.SIGTERM, at=-1)
    count("os.symlink", ("000002", str(tmp_path / "last"), -1))
    count("os.remove", (str(tmp_path / "last"), -1))
    count("os.remove", (os.sep, -1))
    assert operations.value == 2


@pytest.mark.slow
def test_a_killed_policy_ends_with_the_weights_of_an_uninterrupted_run(tmp_path: Path) -> None:
    pytest.importorskip("metaworld")
    others = dict.fromkeys(("labels", "laq", "foundation", "recorder", "pseudo_label"), 0)
    assert kills(KillsConfig(work_dir=tmp_path, policy=1, **others))["policy"] == [1, 1]
