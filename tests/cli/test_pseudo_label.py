from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lerobot.datasets.dataset_tools import add_features
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from safetensors.torch import load_file

from hlrp.cli.combine_datasets import CombineDatasetsConfig, combine_datasets
from hlrp.cli.pseudo_label import PseudoLabelConfig, pseudo_label
from hlrp.data.source_config import AddedSourceConfig, LabelledShare, SourceConfig
from hlrp.data.training_sources import open_training_sources
from hlrp.inverse_dynamics.config import InverseDynamicsConfig
from hlrp.latents import LatentSpec
from hlrp.measure.held_out import quality_clips
from policies.lerobot_commands import policy_flags, pretrained, train_flags
from tiny_datasets import CAMERA, LENGTHS, create_dataset
from tiny_videos import write_video

TINY = InverseDynamicsConfig(members=1, steps=3, batch_size=8, width=8, folds=2)


def config(dataset: Path, output: Path, **changes: object) -> PseudoLabelConfig:
    values = {"start": "scratch", "image_size": 32, "labelled_episodes": [0, 1], "model": TINY, "device": "cpu"}
    return PseudoLabelConfig(output_dir=output, dataset_root=str(dataset), **{**values, **changes})  # pyright: ignore[reportArgumentType]


def rows(folder: Path, column: str) -> np.ndarray:
    table = pq.read_table(sorted((folder / "data").rglob("*.parquet"))).sort_by("index")
    return np.array(table.column(column).to_pylist())


def test_the_result_is_a_dataset_of_lerobot_with_all_actions(image_dataset_root: Path, tmp_path: Path) -> None:
    output = tmp_path / "full"
    pseudo_label(config(image_dataset_root, output))
    before, after = (LeRobotDataset("local/x", root=root) for root in (image_dataset_root, output))
    assert after.num_frames == before.num_frames
    known = rows(output, "is_action_known").astype(bool)
    episode = rows(output, "episode_index")
    np.testing.assert_array_equal(known, np.isin(episode, [0, 1]))
    np.testing.assert_array_equal(rows(output, "action")[known], rows(image_dataset_root, "action")[known])
    assert (rows(output, "action")[~known] != rows(image_dataset_root, "action")[~known]).any()
    confidence = rows(output, "action_confidence")
    assert (confidence[known] == 1).all()
    assert ((confidence >= 0) & (confidence <= 1)).all()
    item, other = after[5], before[5]
    assert torch.equal(item[CAMERA], other[CAMERA])
    assert item["action"].dtype == torch.float32
    assert item["task"] == other["task"]


def test_statistics_are_those_of_the_new_actions(image_dataset_root: Path, tmp_path: Path) -> None:
    output = tmp_path / "full"
    pseudo_label(config(image_dataset_root, output))
    dataset, actions = LeRobotDataset("local/x", root=output), rows(output, "action")
    assert dataset.meta.stats is not None
    np.testing.assert_allclose(dataset.meta.stats["action"]["mean"], actions.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dataset.meta.stats["action"]["max"], actions.max(0), rtol=1e-6)
    table = pq.read_table(sorted((output / "meta/episodes").rglob("*.parquet")))
    first = table.slice(2, 1).to_pylist()[0]
    own = actions[rows(output, "episode_index") == first["episode_index"]]
    np.testing.assert_allclose(first["stats/action/mean"], own.mean(0), rtol=1e-5, atol=1e-6)
    assert "stats/action_confidence/mean" in table.column_names


def test_videos_are_the_same_files(video_dataset_root: Path, tmp_path: Path) -> None:
    output = tmp_path / "full"
    pseudo_label(config(video_dataset_root, output))
    for path in sorted((video_dataset_root / "videos").rglob("*.mp4")):
        assert (output / path.relative_to(video_dataset_root)).samefile(path)


def test_the_report_holds_what_was_measured(
    image_dataset_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    output = tmp_path / "full"
    log = tmp_path / "log.jsonl"
    options = {"min_confidence": 0.99, "frame_offset_s": 0.2, "log_json": str(log)}
    pseudo_label(config(image_dataset_root, output, **options))
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    # Messages and, on a busy machine, progress are left out.
    kinds = [event["event"] for event in events if event["event"] not in ("message", "progress")]
    assert kinds == ["start", "saved", "warning", "end"]
    assert "too low to train a policy" in caplog.text  # three training steps are not enough
    metrics = json.loads((output / "pseudo_labels/metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["held_out"]) >= {"r2", "r2_by_dimension", "calibration", "held_out", "tolerance"}
    assert 0 <= metrics["held_out"]["calibration"]["error"] <= 1
    assert "data:image/png" in (output / "pseudo_labels/report.html").read_text(encoding="utf-8")
    valid, confidence = rows(output, "is_action_valid").astype(bool), rows(output, "action_confidence")
    np.testing.assert_array_equal(valid, confidence >= 0.99)
    printed = capsys.readouterr().out
    assert "train on its labelled episodes alone" in printed
    assert "--dataset.episodes=[0, 1]" in printed.replace("'", "")
    assert "calibration error" in printed


def test_a_dataset_with_all_actions_has_no_confidence_of_predicted_ones(
    image_dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pseudo_label(config(image_dataset_root, tmp_path / "full", labelled_episodes=list(range(len(LENGTHS)))))
    frames = json.loads((tmp_path / "full/pseudo_labels/metrics.json").read_text(encoding="utf-8"))["frames"]
    assert (frames["read"], frames["mean_confidence"]) == (0, None)
    assert re.search(r"mean confidence of the predicted actions +–", capsys.readouterr().out)


def test_a_laq_is_the_default_start(image_dataset_root: Path, laq_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "full"
    found = pseudo_label(config(image_dataset_root, output, start="laq", laq_path=str(laq_path), image_size=64))
    assert found.actions.isfinite().all()
    assert output.is_dir()


def test_bad_choices_are_refused_before_anything_is_written(image_dataset_root: Path, tmp_path: Path) -> None:
    output = tmp_path / "full"
    with pytest.raises(ValueError, match="labelled_episodes has \\[99\\]"):
        pseudo_label(config(image_dataset_root, output, labelled_episodes=[99]))
    with pytest.raises(ValueError, match="no column 'nothing'"):
        pseudo_label(config(image_dataset_root, output, labelled_episodes=[], action_valid_column="nothing"))
    assert list(tmp_path.iterdir()) == []
    output.mkdir()
    (output / "mine.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(FileExistsError):
        pseudo_label(config(image_dataset_root, output))


def test_one_model_on_clips_of_one_action_cannot_choose_by_confidence(
    image_dataset_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=r"min_confidence=0.5 would keep all of them or none; use a --frame_offset_s"):
        pseudo_label(config(image_dataset_root, tmp_path / "full", min_confidence=0.5))
    pseudo_label(config(image_dataset_root, tmp_path / "full"))
    assert "all predicted actions get the same confidence; use a --frame_offset_s of 0.2 or more" in caplog.text


@pytest.mark.parametrize("changes", [{"min_confidence": 1.5}, {"labelled_fraction": 0.0}, {"image_size": 4}])
def test_options_out_of_range_are_refused(tmp_path: Path, changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        config(tmp_path, tmp_path / "out", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "laq", "image_size": 32}, "image_size has no effect with start=laq, where the LAQ has its own"),
        ({"start": "laq", "image_size": 64, "frame_offset_s": 0.3}, "frame_offset_s has no effect with start=laq"),
        ({"laq_path": "my_laq"}, "laq_path has no effect with start=scratch, where no LAQ is read; leave it out"),
    ],
)
def test_options_of_the_other_start_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(tmp_path, tmp_path / "out", **changes)


def test_read_actions_are_never_taken_for_known_ones(image_dataset_root: Path, tmp_path: Path) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    pseudo_label(config(image_dataset_root, once))
    with pytest.raises(ValueError, match="already holds actions that were read from video"):
        pseudo_label(config(once, twice))
    pseudo_label(config(once, twice, labelled_episodes=[], action_valid_column="is_action_known"))
    np.testing.assert_array_equal(rows(twice, "is_action_known"), rows(once, "is_action_known"))


def test_a_quantizer_learns_from_actions_read_from_video_and_is_measured_on_recorded_ones(
    image_dataset_root: Path, tmp_path: Path
) -> None:
    output = tmp_path / "full"
    pseudo_label(config(image_dataset_root, output))
    [part] = open_training_sources(
        [SourceConfig(dataset_root=str(output))],
        LatentSpec(frame_offset_s=0.2),
        image_size=(32, 32),
        cache_gib=1,
        held_out=0.3,
        labelled=LabelledShare(fraction=1.0),
        seed=0,
    )
    known = torch.from_numpy(rows(output, "is_action_known").astype(bool))
    recorded = part.source.recorded_actions
    assert recorded is not None
    assert torch.equal(recorded.isfinite().all(1), known)
    assert torch.equal(part.labelled, part.episodes)
    clips = quality_clips(part.source, LatentSpec(frame_offset_s=0.2), torch.tensor([0, 1]), torch.tensor([2]), seed=0)
    assert clips.fit_actions is not None
    assert clips.held_out_actions is not None
    assert clips.fit_actions.isfinite().all()
    assert clips.held_out_actions.isnan().all()


def test_actions_that_a_source_keeps_are_known_and_stay_as_recorded(image_dataset_root: Path, tmp_path: Path) -> None:
    same_robot, output = tmp_path / "same_robot", tmp_path / "full"
    create_dataset(same_robot, lengths=(11, 9), seed=5)
    source = AddedSourceConfig(dataset_root=str(same_robot), keep=["observation.state", "action"])
    pseudo_label(config(image_dataset_root, output, sources=[source]))
    added = rows(output, "episode_index") >= len(LENGTHS)
    assert rows(output, "is_action_known")[added].all()
    np.testing.assert_array_equal(rows(output, "action")[added], rows(same_robot, "action"))


def test_a_source_does_not_keep_actions_that_were_read_from_video(image_dataset_root: Path, tmp_path: Path) -> None:
    once = tmp_path / "once"
    pseudo_label(config(image_dataset_root, once))
    source = AddedSourceConfig(dataset_root=str(once), keep=["action"])
    with pytest.raises(ValueError, match="leave action out of keep"):
        pseudo_label(config(image_dataset_root, tmp_path / "twice", sources=[source]))


def test_an_episode_shorter_than_a_clip_has_no_valid_action(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short, output = tmp_path / "short", tmp_path / "full"
    create_dataset(short, lengths=(12, 14, 3, 13))
    monkeypatch.setattr("hlrp.commands.pseudo_label._USABLE_R2", -100.0)  # three training steps read badly
    found = pseudo_label(config(short, output, frame_offset_s=0.4))
    np.testing.assert_array_equal(rows(output, "is_action_valid"), rows(output, "episode_index") != 2)
    assert "1 episode shorter than a clip, of which no action can be read: 2;" in caplog.text
    assert "--dataset.episodes=[0, 1, 3]" in capsys.readouterr().out
    assert int(found.read.sum()) == 13
    metrics = json.loads((output / "pseudo_labels/metrics.json").read_text(encoding="utf-8"))
    assert metrics["frames"]["read"] == 13


def test_frames_that_one_column_marks_and_the_other_denies_are_read(
    image_dataset_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flag = {"dtype": "bool", "shape": (1,), "names": None}
    episode = rows(image_dataset_root, "episode_index")
    columns = {
        "is_action_valid": np.isin(episode, [0, 1]),
        "good": np.isin(episode, [0, 1, 2]),
        "other": episode == 3,
    }
    marked, output = tmp_path / "marked", tmp_path / "full"
    add_features(
        LeRobotDataset("local/x", root=image_dataset_root),
        features={name: (values[:, None], flag) for name, values in columns.items()},
        output_dir=marked,
        repo_id="local/x",
    )
    pseudo_label(config(marked, output, labelled_episodes=[], action_valid_column="good"))
    np.testing.assert_array_equal(rows(output, "is_action_known"), columns["is_action_valid"])
    assert np.isfinite(rows(output, "action")).all()
    assert f"{LENGTHS[2]} of the {sum(LENGTHS[:3])} frames that the column 'good' marks" in caplog.text
    with pytest.raises(ValueError, match="column 'other' marks have no action by the dataset's column 'is_action_vali"):
        pseudo_label(config(marked, tmp_path / "none", labelled_episodes=[], action_valid_column="other"))


def test_dimensions_that_the_labelled_episodes_hold_still_are_named(
    image_dataset_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    output = tmp_path / "full"
    pseudo_label(config(image_dataset_root, output))
    assert "constant in the labelled episodes, and therefore in every action that was read: d;" in caplog.text
    page = (output / "pseudo_labels/report.html").read_text(encoding="utf-8")
    assert "never vary in the labelled episodes: d." in page


def test_an_unknown_share_of_explained_variance_is_warned_of(
    image_dataset_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with patch("hlrp.inverse_dynamics.pseudo_actions.r_squared", return_value=(float("nan"), [0.0] * 3)):
        pseudo_label(config(image_dataset_root, tmp_path / "full"))
    assert "too low to train a policy" in caplog.text


def test_actions_of_films_that_were_combined_with_a_dataset_are_predicted(
    image_dataset_root: Path, tmp_path: Path
) -> None:
    films, both, output = tmp_path / "films", tmp_path / "both", tmp_path / "full"
    films.mkdir()
    for name in ("a.mp4", "b.mp4"):
        write_video(films / name, 14, noise=2.0)
    source = AddedSourceConfig(video_dir=str(films), instruction="Open the door", camera=CAMERA)
    combine_datasets(
        CombineDatasetsConfig(
            output_dir=both, dataset_root=str(image_dataset_root), labelled_episodes=[0, 1], sources=[source]
        )
    )
    pseudo_label(config(both, output, labelled_episodes=[]))
    episode, known = rows(output, "episode_index"), rows(output, "is_action_known").astype(bool)
    np.testing.assert_array_equal(known, np.isin(episode, [0, 1]))
    assert rows(output, "is_action_valid").all()
    films_alone = episode >= len(LENGTHS)
    assert films_alone.sum() == 28
    actions = rows(output, "action")
    assert np.isfinite(actions).all()
    assert len(np.unique(actions[films_alone], axis=0)) > 1  # predicted, and not the mean that stood there
    assert (rows(output, "action_confidence")[films_alone] < 1).all()
    last: Any = LeRobotDataset("local/x", root=output)[-1]
    assert last["task"] == "Open the door"


@pytest.mark.slow
def test_lerobot_trains_its_own_policy_on_the_result_without_this_package(
    video_dataset_root: Path, tmp_path: Path
) -> None:
    data, output = tmp_path / "full", tmp_path / "act"
    pseudo_label(config(video_dataset_root, data))
    # LeRobot imports installed plugins, and goes on without those that cannot be imported.
    train = (
        "import sys; sys.modules.update(hlrp=None, lerobot_policy_felix_bundle=None); "
        "from lerobot.scripts.lerobot_train import main; main()"
    )
    sizes = policy_flags(
        dim_model=16, n_heads=2, dim_feedforward=32, n_encoder_layers=1, n_vae_encoder_layers=1, latent_dim=4,
        chunk_size=4, n_action_steps=4, pretrained_backbone_weights=None,
    )  # fmt: skip
    found = subprocess.run(
        [sys.executable, "-c", train, "--policy.type=act", *sizes, *train_flags(data, output, steps=2)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert found.returncode == 0, found.stderr[-3000:]
    saved = json.loads((pretrained(output) / "config.json").read_text(encoding="utf-8"))
    assert saved["output_features"]["action"]["shape"] == [4]
    assert "is_action_valid" not in {**saved["input_features"], **saved["output_features"]}
    weights = load_file(pretrained(output) / "model.safetensors")
    assert all(value.isfinite().all() for value in weights.values())
