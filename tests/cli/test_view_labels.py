"""`hlrp-view-labels` shows the stored codes of the episodes that were asked for, and overwrites nothing."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hlrp.cli.precompute_latent_codes import PrecomputeConfig, precompute_latent_codes
from hlrp.cli.view_labels import ViewLabelsConfig, main, view_labels
from hlrp.data import video_folder
from hlrp.data.labels import load_labels
from hlrp.data.pyav_decoder import PyAVDecoder
from hlrp.data.video_folder import video_length
from tiny_datasets import LENGTHS, TASKS
from tiny_videos import write_video


@pytest.fixture
def config(labelled_dataset_root: Path, tmp_path: Path) -> ViewLabelsConfig:
    return ViewLabelsConfig(dataset_root=str(labelled_dataset_root), output_dir=str(tmp_path / "view"))


def test_the_page_holds_the_stored_codes_of_the_chosen_episodes(
    config: ViewLabelsConfig, labelled_dataset_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = view_labels(replace(config, episodes=[2, 1], clips_per_code=1)).read_text(encoding="utf-8")
    labels = load_labels(labelled_dataset_root / "latents")
    shown = re.findall(r'data-codes="([^"]*)"', page)
    first = LENGTHS[0]
    for codes, length in zip(shown, LENGTHS[1:3], strict=True):
        expected = [" ".join(map(str, row)) for row in labels.codes[first : first + length - 1].tolist()]
        assert codes.split(";") == [*expected, ""], "the last frame has no clip, and no label"
        first += length
    assert re.findall(r"<h3>(Episode [^<]*)", page) == [f"Episode 1: {TASKS[1]}", f"Episode 2: {TASKS[0]}"]
    assert "Nearest clips of each code" in page
    assert f"page: {config.output_dir}/report.html (" in capsys.readouterr().out


def test_without_a_choice_three_episodes_are_spread_over_the_dataset(config: ViewLabelsConfig) -> None:
    page = view_labels(replace(config, clips_per_code=0, max_seconds=0.5)).read_text(encoding="utf-8")
    assert re.findall(r"<h3>Episode (\d)[^<]*The first 5 of (\d+) frames", page) == [
        (str(number), str(LENGTHS[number])) for number in (0, 2, 5)
    ]
    assert "Nearest clips" not in page


def test_a_recording_for_rerun_holds_frames_and_codes(config: ViewLabelsConfig, tmp_path: Path) -> None:
    rerun = pytest.importorskip("rerun")
    path = tmp_path / "labels.rrd"
    view_labels(replace(config, episodes=[1], clips_per_code=0, rerun=path))
    with pytest.warns(DeprecationWarning, match="load_recording"):
        schema = rerun.recording.load_recording(path).schema()
    codes = load_labels(Path(config.dataset_root or "") / "latents").codes.shape[1]
    assert {entity for entity in schema.entity_paths() if entity.startswith("/episode")} == {
        "/episode_1",
        "/episode_1/frames",
        *(f"/episode_1/codes/slot_{slot}" for slot in range(codes)),
    }
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["labels.rrd", "view"]


def test_films_are_shown_with_their_labels_and_not_with_those_of_others(
    laq_path: Path, tmp_path: Path, config: ViewLabelsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = tmp_path / "films"
    films.mkdir()
    for name, frames in (("a.mp4", 14), ("b.mp4", 12)):
        write_video(films / name, frames, noise=2.0)
    labels = tmp_path / "labels"
    precompute_latent_codes(
        PrecomputeConfig(laq_path=str(laq_path), video_dir=str(films), output_dir=str(labels), device="cpu")
    )
    of_films = replace(config, dataset_root=None, video_dir=str(films), labels_path=str(labels))
    read: list[str] = []
    monkeypatch.setattr(video_folder, "video_length", lambda path: read.append(path.name) or video_length(path))
    page = view_labels(of_films).read_text(encoding="utf-8")
    assert read == ["a.mp4", "b.mp4"]  # each once
    assert re.findall(r"<h3>(Episode [^<]*)", page) == ["Episode 0: a.mp4", "Episode 1: b.mp4"]
    assert PyAVDecoder(films / "a.mp4").picture_size() == (48, 48)
    write_video(films / "b.mp4", 12, noise=1.0)
    with pytest.raises(ValueError, match=r"other frames than those of the videos .* the pictures differ"):
        view_labels(replace(of_films, output_dir=str(tmp_path / "again")))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--episodes=[99]"], "episodes has [99], and"),
        (["--episodes=[0,1,2,3,4,5,6,7,8,9,10,11,12]"], "episodes names 13 episodes, a page shows at most 12"),
        (["--camera=observation.images.wrist"], "has no camera 'observation.images.wrist'; it has observation"),
        (["--max_seconds=90"], "max_seconds must be in (0, 60], got 90.0"),
        (["--video_dir=films"], "video_dir and dataset_root exclude each other"),
        (["--labels_path=none"], "so this is not a folder of latent labels"),
        (["--rerun=view/labels.rrd"], "rerun view/labels.rrd is inside output_dir view; name a file beside it"),
    ],
)
def test_a_mistake_ends_in_one_line_and_nothing_left_behind(
    config: ViewLabelsConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["hlrp-view-labels", f"--dataset_root={config.dataset_root}", "--output_dir=view", *flags]
    )
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_an_existing_result_is_kept(config: ViewLabelsConfig, tmp_path: Path) -> None:
    (tmp_path / "labels.rrd").write_text("mine")
    pytest.importorskip("rerun")
    with pytest.raises(FileExistsError, match=r"labels.rrd already exists"):
        view_labels(replace(config, rerun=tmp_path / "labels.rrd"))
    shutil.copytree(tmp_path, tmp_path / "view")
    with pytest.raises(FileExistsError, match="view already exists"):
        view_labels(config)
    assert (tmp_path / "labels.rrd").read_text() == "mine"


def test_rerun_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ValueError, match=r'needs rerun; install it with `pip install "lerobot_policy_.*\[viewer\]"`'):
        ViewLabelsConfig(rerun=Path("x.rrd"))
