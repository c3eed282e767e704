from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hlrp.cli.inspect_latents import InspectConfig, inspect_latents, main
from hlrp.cli.train_laq import TrainLAQConfig, train_laq
from hlrp.commands import inspect_latents as command
from hlrp.data.dataset import episode_of_frame
from hlrp.data.sources import ClipSource
from hlrp.data.training_sources import open_source
from hlrp.laq.checkpoint import load_laq
from hlrp.measure.laq_quality import LAQQuality
from tiny_datasets import create_dataset
from tiny_videos import write_video


def test_the_report_holds_the_card_of_the_checkpoint(
    laq_path: Path, image_dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report"
    config = InspectConfig(
        laq_path=str(laq_path), dataset_root=str(image_dataset_root), output_dir=str(output), device="cpu"
    )
    quality = inspect_latents(config)
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["quality"] == quality.to_dict() == json.loads((laq_path / "quality.json").read_text())
    assert metrics["baselines"] == []
    page = (output / "report.html").read_text()
    assert "<img" in page
    assert f"{quality.probe.probe_r2:.3f}" in page
    assert sorted(path.name for path in output.iterdir()) == ["metrics.json", "report.html"]
    assert "probe R² of codes" in capsys.readouterr().out


@pytest.fixture(scope="module")
def other_seed(image_dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LAQ whose training held out other episodes than seed 0 would."""
    folder = tmp_path_factory.mktemp("seed") / "laq"
    train_laq(
        TrainLAQConfig(
            dataset_root=str(image_dataset_root), output_dir=str(folder), preset="debug", steps=2, batch_size=8, seed=1,
            held_out=0.4, device="cpu",
        )
    )  # fmt: skip
    return folder


def test_the_dataset_of_the_training_is_measured_on_the_split_of_the_training(
    other_seed: Path, image_dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved, output = tmp_path / "moved", tmp_path / "report"
    shutil.copytree(image_dataset_root, moved)
    config = InspectConfig(laq_path=str(other_seed), dataset_root=str(moved), output_dir=str(output), device="cpu")
    inspect_latents(config)
    found = json.loads((output / "metrics.json").read_text())
    held_out = load_laq(other_seed).extra["sources"][0]["held_out_episodes"]
    assert (found["episodes"]["basis"], found["episodes"]["measured"]) == ("held out", held_out)
    assert found["quality"] == json.loads((other_seed / "quality.json").read_text())
    assert found["verdict"]["next_step"]
    sentence = "measured on the 2 episodes of 6 that its training held out"
    printed = capsys.readouterr().out
    assert sentence in printed
    assert sentence in (output / "report.html").read_text()
    assert "latent quality (held-out episodes)" in printed


def test_another_dataset_is_never_called_held_out(
    other_seed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_dataset(tmp_path / "kitchen", seed=3)  # episodes of the same lengths, other recordings
    inspect_latents(InspectConfig(laq_path=str(other_seed), dataset_root=str(tmp_path / "kitchen"), device="cpu"))
    printed = capsys.readouterr().out
    assert "trained on other recordings (images)" in printed
    assert "latent quality (another dataset)" in printed
    assert "held-out" not in printed
    assert "unseen" not in printed


def test_baselines_are_measured_on_request(laq_path: Path, image_dataset_root: Path, tmp_path: Path) -> None:
    output = tmp_path / "report"
    config = InspectConfig(
        laq_path=str(laq_path), dataset_root=str(image_dataset_root), output_dir=str(output), baselines=True,
        labeller_steps=3, device="cpu",
    )  # fmt: skip
    inspect_latents(config)
    rows = json.loads((output / "metrics.json").read_text())["baselines"]
    assert [row["name"] for row in rows] == ["this LAQ", "random LAQ", "inverse dynamics", "oracle codes"]
    assert "actions of 1 episode " in rows[2]["meaning"]  # a fortieth of five episodes is at least one
    assert "oracle codes" in (output / "report.html").read_text()


def test_baselines_are_measured_on_the_held_out_episodes_with_actions(
    other_seed: Path, image_dataset_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = load_laq(other_seed).extra["sources"][0]["held_out_episodes"]
    compared = []

    def rows(config: object, quality: LAQQuality, *rest: object, **settings: object) -> list[object]:
        compared.append(quality.episodes)
        return []

    monkeypatch.setattr(command, "baseline_rows", rows)
    config = InspectConfig(laq_path=str(other_seed), dataset_root=str(image_dataset_root), baselines=True, device="cpu")
    forget_actions(monkeypatch, [first])
    assert inspect_latents(config).episodes == 2
    forget_actions(monkeypatch, [])
    assert inspect_latents(config).episodes == 2
    assert compared == [1, 2]
    forget_actions(monkeypatch, [first, second])
    with pytest.raises(ValueError, match="none of the 2 episodes to measure of images has known actions"):
        inspect_latents(config)
    assert inspect_latents(replace(config, baselines=False)).episodes == 2


def forget_actions(monkeypatch: pytest.MonkeyPatch, episodes: list[int]) -> None:
    """Let the command find no action in `episodes` of its source, which stays the recordings that it is."""

    def without_actions(config: Any, **settings: Any) -> ClipSource:
        source = open_source(config, **settings)
        assert source.actions is not None
        actions, identity = source.actions.clone(), source.identity()
        actions[torch.isin(episode_of_frame(source.bounds), torch.tensor(episodes))] = torch.nan
        monkeypatch.setattr(ClipSource, "identity", lambda _: identity)
        return replace(source, actions=actions)

    monkeypatch.setattr(command, "open_source", without_actions)


def test_chosen_episodes_are_measured_alone(other_seed: Path, image_dataset_root: Path, tmp_path: Path) -> None:
    held_out = load_laq(other_seed).extra["sources"][0]["held_out_episodes"]
    trained = [number for number in range(6) if number not in held_out]

    def measured(*episodes: int) -> dict[str, Any]:
        output = tmp_path / "".join(map(str, episodes))
        inspect_latents(
            InspectConfig(
                laq_path=str(other_seed), dataset_root=str(image_dataset_root), episodes=list(episodes),
                output_dir=str(output), device="cpu",
            )
        )  # fmt: skip
        return json.loads((output / "metrics.json").read_text())["episodes"]

    both = measured(held_out[1], *trained[:2])
    assert (both["basis"], both["measured"], both["fit"]) == ("held out", [held_out[1]], trained[:2])
    seen = measured(*trained[:2])
    assert seen["basis"] == "trained on"
    assert sorted(seen["measured"] + seen["fit"]) == trained[:2]
    unseen = measured(*held_out)
    assert unseen["basis"] == "held out"
    assert "trained on this dataset, but on none of these episodes" in unseen["sentence"]
    with pytest.raises(ValueError, match="the episodes 0 to 5"):
        measured(99)


@pytest.mark.parametrize(("name", "wrong"), [("seed", None), ("sources", None), ("sources", [{"name": "x"}])])
def test_a_description_altered_by_hand_is_named(
    laq_path: Path, image_dataset_root: Path, tmp_path: Path, name: str, wrong: object
) -> None:
    shutil.copytree(laq_path, tmp_path / "laq")
    file = tmp_path / "laq" / "laq.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "extra": {**values["extra"], name: wrong}}))
    config = InspectConfig(laq_path=str(file.parent), dataset_root=str(image_dataset_root), device="cpu")
    with pytest.raises(ValueError, match=rf"laq\.json of .*extra\.{name}"):
        inspect_latents(config)


def test_a_dataset_without_actions_is_inspected_but_not_compared(laq_path: Path, tmp_path: Path) -> None:
    root = tmp_path / "plain"
    create_dataset(root, with_actions=False)
    config = InspectConfig(
        laq_path=str(laq_path), dataset_root=str(root), output_dir=str(tmp_path / "report"), device="cpu"
    )
    assert inspect_latents(config).probe.probe_r2 is None
    assert (tmp_path / "report" / "report.html").is_file()
    with pytest.raises(ValueError, match="no actions"):
        inspect_latents(InspectConfig(laq_path=str(laq_path), dataset_root=str(root), baselines=True, device="cpu"))


def test_plain_videos_are_inspected_from_the_command_line(
    laq_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        write_video(tmp_path / "films" / f"{number}.mp4", 12)
    output = tmp_path / "report"
    flags = [f"--laq_path={laq_path}", f"--video_dir={tmp_path / 'films'}", f"--output_dir={output}", "--device=cpu"]
    monkeypatch.setattr(sys, "argv", ["hlrp-inspect-latents", *flags])
    main()
    assert json.loads((output / "metrics.json").read_text())["about"]["cameras"] == "plain videos"
    assert "gain over copying" in capsys.readouterr().out


def test_an_earlier_report_is_never_overwritten(
    laq_path: Path, image_dataset_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").write_text("mine")
    flags = [f"--laq_path={laq_path}", f"--dataset_root={image_dataset_root}", f"--output_dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["hlrp-inspect-latents", *flags])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="labelled_fraction"):
        InspectConfig(labelled_fraction=0)
    with pytest.raises(ValueError, match="steps"):
        InspectConfig(labeller_steps=0)
