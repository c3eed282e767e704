from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from lerobot.datasets.dataset_tools import add_features, delete_episodes
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION, OBS_STATE

from hlrp.data.added_episodes import film_instructions
from hlrp.data.combining import SourceCount, combine
from hlrp.data.dataset import ACTION_KNOWN, ACTION_VALID, open_dataset, read_actions, read_vectors
from hlrp.data.rewritten_dataset import NewColumn, write_with_columns
from hlrp.data.source_config import AddedSourceConfig
from hlrp.data.sources import lerobot_source
from hlrp.pixels import resize
from tiny_datasets import CAMERA, FPS, LENGTHS, SIZE, TASKS, create_dataset
from tiny_videos import STEP, write_pictures, write_video

LABELLED = [0, 2]
FRAMES = sum(LENGTHS)


def films(folder: Path) -> Path:
    """Two films of other sizes and frame rates: 12 frames at 10 Hz, and 20 frames at 20 Hz."""
    write_video(folder / "a.mp4", 12, size=48)
    write_video(folder / "more" / "b.mkv", 20, size=64, fps=20)
    return folder


def combined(first: Path, root: Path, *sources: AddedSourceConfig, **options: Any) -> LeRobotDataset:
    """The dataset in `first` with `sources`, as LeRobot reads it."""
    combine(open_dataset("local/first", first), sources, root, repo_id="local/combined", **options)
    return open_dataset("local/combined", root)


@pytest.fixture(scope="module")
def with_films(video_dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    """The six recorded episodes, of which two have known actions, and two films; read only."""
    folder = tmp_path_factory.mktemp("combined")
    source = AddedSourceConfig(video_dir=str(films(folder / "films")), instruction="Watch")
    return combined(video_dataset_root, folder / "data", source, labelled_episodes=LABELLED)


def value(dataset: LeRobotDataset, row: int, column: str) -> Any:
    """One column of one frame; pixels in [0, 255] wherever they are stored."""
    sample: Any = dataset[row]
    found = sample[column]
    return (
        (found * 255).round().byte() if column.startswith("observation.images") and found.is_floating_point() else found
    )


def lengths(dataset: LeRobotDataset) -> list[int]:
    """Numbers of frames of all episodes."""
    assert dataset.meta.episodes is not None
    return list(dataset.meta.episodes["length"])


def known(dataset: LeRobotDataset) -> torch.Tensor:
    values = read_vectors(dataset.meta, ACTION_VALID)
    assert values is not None
    return values[:, 0] == 1


def test_films_become_episodes_after_those_of_the_dataset(with_films: LeRobotDataset) -> None:
    assert with_films.meta.total_episodes == len(LENGTHS) + 2
    assert lengths(with_films) == [*LENGTHS, 12, 10]
    assert with_films.fps == FPS
    assert value(with_films, FRAMES + 3, "task") == "Watch"
    assert value(with_films, FRAMES + 3, CAMERA).shape == (3, SIZE, SIZE)
    assert value(with_films, 0, "task") == TASKS[0]
    shown = [(value(with_films, FRAMES + i, CAMERA).float().mean() / STEP).round().int().item() for i in range(22)]
    assert shown[:12] == list(range(12))
    assert np.abs(np.array(shown[12:]) - np.arange(1, 21, 2)).max() <= 1


def test_frames_states_and_video_files_of_the_dataset_stay(
    with_films: LeRobotDataset, video_dataset_root: Path
) -> None:
    first = open_dataset("local/first", video_dataset_root)
    for row in (0, 11, 12, 40, FRAMES - 1):
        assert torch.equal(value(with_films, row, CAMERA), value(first, row, CAMERA))
        assert torch.equal(value(with_films, row, OBS_STATE), value(first, row, OBS_STATE))
    number = 0
    mine = with_films.root / with_films.meta.get_video_file_path(number, CAMERA)
    assert mine.read_bytes() == (first.root / first.meta.get_video_file_path(number, CAMERA)).read_bytes()


def test_actions_are_known_in_the_labelled_episodes_alone(with_films: LeRobotDataset, video_dataset_root: Path) -> None:
    is_known = known(with_films)
    episode = torch.repeat_interleave(torch.arange(8), torch.tensor([*LENGTHS, 12, 10]))
    assert torch.equal(is_known, torch.isin(episode, torch.tensor(LABELLED)))
    actions = read_vectors(with_films.meta, ACTION)
    original = read_actions(open_dataset("local/first", video_dataset_root)).double()
    assert actions is not None
    taught = original[is_known[:FRAMES]]
    assert torch.equal(actions[is_known], taught)
    torch.testing.assert_close(actions[~is_known], taught.mean(0).expand(int((~is_known).sum()), -1))
    assert read_actions(with_films).isnan().any(1).tolist() == (~is_known).tolist()


def test_statistics_are_those_of_known_values(with_films: LeRobotDataset, video_dataset_root: Path) -> None:
    stats, rows = with_films.meta.stats, read_vectors(with_films.meta, ACTION)
    assert stats is not None
    assert rows is not None
    taught = rows[known(with_films)]
    np.testing.assert_allclose(stats[ACTION]["mean"], taught.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats[ACTION]["std"], taught.std(0, correction=0), atol=1e-6)
    np.testing.assert_allclose(stats[ACTION]["max"], taught.max(0).values, atol=1e-6)
    assert stats[ACTION]["count"].tolist() == [len(taught)]
    first = open_dataset("local/first", video_dataset_root).meta.stats
    assert first is not None
    for name, value in stats[OBS_STATE].items():
        np.testing.assert_allclose(value, first[OBS_STATE][name], atol=1e-4)
    assert stats[CAMERA]["count"].tolist() == [FRAMES + 22]
    assert all(np.isfinite(value).all() for values in stats.values() for value in values.values())


def test_lerobots_own_tools_take_the_result(with_films: LeRobotDataset, tmp_path: Path) -> None:
    left = delete_episodes(with_films, [1, 6], output_dir=tmp_path / "left", repo_id="local/left")
    assert left.meta.total_episodes == 6
    stats, before = left.meta.stats, with_films.meta.stats
    assert stats is not None
    assert before is not None
    np.testing.assert_allclose(stats[ACTION]["mean"], before[ACTION]["mean"], atol=1e-6)


@pytest.mark.parametrize(("own", "added"), [([0, 2, 4], [1, 3, 5]), ([4, 5], [0, 1, 2, 3]), ([0, 1], [0, 1])])
def test_one_video_dataset_may_be_several_sources(
    video_dataset_root: Path, tmp_path: Path, own: list[int], added: list[int]
) -> None:
    source = AddedSourceConfig(dataset_root=str(video_dataset_root), episodes=added)
    dataset = combined(video_dataset_root, tmp_path / "data", source, episodes=own)
    original = open_dataset("local/first", video_dataset_root)
    starts = np.cumsum([0, *LENGTHS])
    row = 0
    for number in [*own, *added]:
        for frame in (0, LENGTHS[number] - 1):
            shown = value(original, int(starts[number]) + frame, CAMERA)
            assert torch.equal(value(dataset, row + frame, CAMERA), shown)
        row += LENGTHS[number]


def test_a_result_that_could_not_be_opened_gets_no_place(
    video_dataset_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hlrp.data.combining.require_sound_metadata", Mock(side_effect=ValueError("overlaps")))
    source = AddedSourceConfig(dataset_root=str(video_dataset_root))
    with pytest.raises(RuntimeError, match="could not be combined to a dataset that can be opened: overlaps"):
        combined(video_dataset_root, tmp_path / "data", source)
    assert list(tmp_path.iterdir()) == []


def test_films_keep_their_proportions(video_dataset_root: Path, tmp_path: Path) -> None:
    picture = np.zeros((48, 96, 3), dtype=np.uint8)
    picture[:, 24:72] = 200  # the middle, which is left when both sides are cut off
    write_pictures(tmp_path / "films" / "wide.mp4", [picture] * 4)
    source = AddedSourceConfig(video_dir=str(tmp_path / "films"), instruction="Watch")
    dataset = combined(video_dataset_root, tmp_path / "data", source, episodes=[0])
    assert value(dataset, LENGTHS[0], CAMERA).float().mean() > 190


def test_cropping_takes_the_middle() -> None:
    frame = torch.arange(6, dtype=torch.uint8).expand(3, 4, 6)
    assert resize(frame, (4, 4), crop=True)[0, 0].tolist() == [1, 2, 3, 4]
    assert resize(frame.mT, (4, 4), crop=True)[0, :, 0].tolist() == [1, 2, 3, 4]


def test_a_film_is_split_at_scene_cuts(video_dataset_root: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    scenes = [np.kron(draw.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(2)]
    write_pictures(tmp_path / "films" / "cut.mp4", [scenes[0]] * 12 + [scenes[1]] * 9)
    for split, scenes_of_film in ((True, [12, 9]), (False, [21])):
        source = AddedSourceConfig(video_dir=str(tmp_path / "films"), instruction="Watch", find_scene_cuts=split)
        dataset = combined(video_dataset_root, tmp_path / f"data_{split}", source, episodes=[0])
        assert lengths(dataset) == [LENGTHS[0], *scenes_of_film]


@pytest.mark.parametrize("name", ["texts.json", "texts.csv"])
def test_every_film_can_have_its_own_instruction(video_dataset_root: Path, tmp_path: Path, name: str) -> None:
    folder, file = films(tmp_path / "films"), tmp_path / name
    texts = {"a.mp4": "Open, then close", "more/b.mkv": "Lift"}
    rows = 'a.mp4,"Open, then close"\nmore/b.mkv,Lift\n'
    file.write_text(json.dumps(texts) if name.endswith("json") else rows)
    source = AddedSourceConfig(video_dir=str(folder), instructions=str(file))
    dataset = combined(video_dataset_root, tmp_path / "data", source, episodes=[1])
    assert [value(dataset, LENGTHS[1] + row, "task") for row in (0, 12)] == list(texts.values())


def test_a_film_without_an_instruction_is_named(video_dataset_root: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.json").write_text('{"a.mp4": "Open"}')
    source = AddedSourceConfig(video_dir=str(films(tmp_path / "films")), instructions=str(tmp_path / "texts.json"))
    with pytest.raises(ValueError, match=r"has no instruction for more/b\.mkv"):
        combined(video_dataset_root, tmp_path / "data", source)


def test_blanks_and_the_form_of_accents_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text('öffnen.mp4, Open \nb.mp4, "Open, then close"\n', encoding="utf-8")
    names = [unicodedata.normalize("NFD", "öffnen.mp4"), "b.mp4"]
    found = film_instructions(names, instruction=None, file=str(tmp_path / "texts.csv"))
    assert found == ["Open", "Open, then close"]


def test_an_instruction_for_a_film_that_is_not_there_is_refused(video_dataset_root: Path, tmp_path: Path) -> None:
    folder = films(tmp_path / "films")
    (folder / "bad.mp4").write_bytes(b"no film")
    file = tmp_path / "texts.csv"
    file.write_text("a.mp4,Open\nb.mkv,Close\nbad.mp4,Push\n")
    options: dict[str, Any] = {"instructions": str(file), "instruction": "Watch", "skip_bad_videos": True}
    source = AddedSourceConfig(video_dir=str(folder), **options)
    with pytest.raises(ValueError, match=r"texts\.csv has an instruction for b\.mkv, and the folder no such film"):
        combined(video_dataset_root, tmp_path / "data", source)
    file.write_text("a.mp4,Open\nbad.mp4,Push\n")
    dataset = combined(video_dataset_root, tmp_path / "data", source, episodes=[1])
    assert value(dataset, LENGTHS[1], "task") == "Open"


def test_damaged_films_are_named_together_or_left_out(video_dataset_root: Path, tmp_path: Path) -> None:
    folder = films(tmp_path / "films")
    for name in ("c.mp4", "d.mp4"):
        (folder / name).write_bytes(b"no film")
    source = AddedSourceConfig(video_dir=str(folder), instruction="Watch")
    with pytest.raises(ValueError, match=r"2 of 4 videos .*c\.mp4.*d\.mp4.*skip_bad_videos=true"):
        combined(video_dataset_root, tmp_path / "data", source)
    assert not (tmp_path / "data").exists()
    source = AddedSourceConfig(video_dir=str(folder), instruction="Watch", skip_bad_videos=True)
    assert combined(video_dataset_root, tmp_path / "data", source).meta.total_episodes == 8


# ---- Other datasets ----


@pytest.mark.parametrize("video", [True, False])
def test_a_dataset_without_actions_is_added_as_it_is_stored(
    video_dataset_root: Path, image_dataset_root: Path, tmp_path: Path, video: bool
) -> None:
    front = "observation.images.front"
    create_dataset(tmp_path / "other", video=video, lengths=(9, 11), cameras=(front,), with_actions=False)
    source = AddedSourceConfig(dataset_root=str(tmp_path / "other"), instruction="Watch", episodes=[1])
    first = video_dataset_root if video else image_dataset_root
    dataset = combined(first, tmp_path / "data", source, episodes=[1, 3])
    assert lengths(dataset) == [20, 13, 11]
    reread = open_dataset("local/other", tmp_path / "other")
    mine = open_dataset("local/first", first)
    assert torch.equal(value(dataset, 33 + 4, CAMERA), value(reread, 9 + 4, front))
    assert torch.equal(value(dataset, 20, CAMERA), value(mine, 12 + 20 + 15, CAMERA))
    assert known(dataset).tolist() == [True] * 33 + [False] * 11
    states = read_vectors(dataset.meta, OBS_STATE)
    assert states is not None
    torch.testing.assert_close(states[33:], states[:33].mean(0).expand(11, -1))


def test_states_and_actions_of_the_same_robot_can_be_kept(video_dataset_root: Path, tmp_path: Path) -> None:
    create_dataset(tmp_path / "other", video=True, lengths=(9,), seed=1)
    source = AddedSourceConfig(dataset_root=str(tmp_path / "other"), keep=[OBS_STATE, ACTION])
    dataset = combined(video_dataset_root, tmp_path / "data", source, labelled_episodes=[0])
    other = open_dataset("local/other", tmp_path / "other")
    assert torch.equal(value(dataset, FRAMES + 5, ACTION), value(other, 5, ACTION))
    assert torch.equal(value(dataset, FRAMES + 5, OBS_STATE), value(other, 5, OBS_STATE))
    assert int(known(dataset).sum()) == LENGTHS[0] + 9
    # What is combined once can be combined again, and its unknown actions stay unknown.
    again = combined(
        dataset.root, tmp_path / "again", AddedSourceConfig(dataset_root=str(tmp_path / "other"), instruction="Watch")
    )
    assert int(known(again).sum()) == LENGTHS[0] + 9


def test_values_in_another_order_are_not_kept_and_other_names_are_told(
    image_dataset_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(image_dataset_root, tmp_path / "other")
    source = AddedSourceConfig(dataset_root=str(tmp_path / "other"), keep=[ACTION])
    info = tmp_path / "other" / "meta" / "info.json"
    text = json.loads(info.read_text(encoding="utf-8"))
    text["features"][ACTION]["names"] = ["b", "a", "c", "d"]
    info.write_text(json.dumps(text), encoding="utf-8")
    with pytest.raises(
        ValueError, match="'action' of other holds b, a, c, d, that of local/first a, b, c, d: values in"
    ):
        combined(image_dataset_root, tmp_path / "data", source)
    text["features"][ACTION]["names"] = {"motors": ["a", "b", "c", "gripper"]}
    info.write_text(json.dumps(text), encoding="utf-8")
    combined(image_dataset_root, tmp_path / "data", source)
    assert "holds a, b, c, gripper, that of local/first a, b, c, d: values are kept as if" in caplog.text


def test_the_mean_of_whole_numbers_is_rounded(video_dataset_root: Path, tmp_path: Path) -> None:
    first = open_dataset("local/first", video_dataset_root)
    actions = np.tile([1, -1], (FRAMES, 1))
    actions[::4] = 0  # the means are 0.75 and -0.75
    feature = {"dtype": "int64", "shape": (2,), "names": None}
    write_with_columns(first, tmp_path / "whole", {ACTION: NewColumn(actions, feature)})
    source = AddedSourceConfig(dataset_root=str(video_dataset_root))
    dataset = combined(tmp_path / "whole", tmp_path / "data", source)
    assert value(dataset, FRAMES, ACTION).tolist() == [1, -1]


@pytest.mark.parametrize("is_first", [True, False])
def test_actions_that_were_read_from_video_do_not_become_recorded_ones(
    image_dataset_root: Path, tmp_path: Path, is_first: bool
) -> None:
    plain = create_dataset(tmp_path / "plain", lengths=(9, 8))
    is_recorded = np.arange(17)[:, None] < 9
    feature = {"dtype": "bool", "shape": (1,), "names": None}
    add_features(plain, {ACTION_KNOWN: (is_recorded, feature)}, tmp_path / "read", "local/read")
    first, other = (tmp_path / "read", image_dataset_root) if is_first else (image_dataset_root, tmp_path / "read")
    dataset = combined(first, tmp_path / "data", AddedSourceConfig(dataset_root=str(other), keep=[ACTION]))
    found = lerobot_source(dataset, cameras=[], image_size=(16, 16), cache_gib=0).recorded_actions
    assert found is not None
    parts = [torch.from_numpy(is_recorded[:, 0]), torch.ones(FRAMES, dtype=torch.bool)]
    assert torch.equal(found.isfinite().all(1), torch.cat(parts if is_first else parts[::-1]))
    assert known(dataset).all()


def test_a_dataset_of_another_kind_is_encoded_again(image_dataset_root: Path, tmp_path: Path) -> None:
    create_dataset(tmp_path / "other", video=True, lengths=(9,), with_actions=False)
    source = AddedSourceConfig(dataset_root=str(tmp_path / "other"))
    dataset = combined(image_dataset_root, tmp_path / "data", source)
    other = open_dataset("local/other", tmp_path / "other")
    assert torch.equal(value(dataset, FRAMES + 5, CAMERA), value(other, 5, CAMERA))
    assert value(dataset, FRAMES, "task") == TASKS[0]


def test_a_dataset_of_another_rate_is_read_by_time(video_dataset_root: Path, tmp_path: Path) -> None:
    create_dataset(tmp_path / "other", video=True, lengths=(10, 7), with_actions=False, fps=2 * FPS)
    dataset = combined(video_dataset_root, tmp_path / "data", AddedSourceConfig(dataset_root=str(tmp_path / "other")))
    assert lengths(dataset)[-2:] == [5, 3]
    other = open_dataset("local/other", tmp_path / "other")
    for mine, theirs in ((0, 1), (4, 9), (5, 11)):
        difference = value(dataset, FRAMES + mine, CAMERA).float() - value(other, theirs, CAMERA).float()
        assert difference.abs().mean() < 4
    keeping = AddedSourceConfig(dataset_root=str(tmp_path / "other"), keep=[OBS_STATE])
    with pytest.raises(ValueError, match="20 frames a second, the first dataset 10"):
        combined(video_dataset_root, tmp_path / "more", keeping)


def test_cameras_that_not_all_sources_have_are_left_out(tmp_path: Path) -> None:
    create_dataset(tmp_path / "first", lengths=(8,), cameras=("observation.images.left", CAMERA))
    source = AddedSourceConfig(video_dir=str(films(tmp_path / "films")), instruction="Watch", camera=CAMERA)
    dataset = combined(tmp_path / "first", tmp_path / "data", source)
    assert dataset.meta.camera_keys == [CAMERA]
    with pytest.raises(ValueError, match=r"films has no camera 'observation\.images\.left'"):
        combined(tmp_path / "first", tmp_path / "other", source, cameras=["observation.images.left"])
    unclear = AddedSourceConfig(video_dir=str(tmp_path / "films"), instruction="Watch")
    with pytest.raises(ValueError, match="not known which camera"):
        combined(tmp_path / "first", tmp_path / "other", unclear)


def test_what_does_not_fit_is_refused(video_dataset_root: Path, tmp_path: Path) -> None:
    create_dataset(tmp_path / "other", video=True, lengths=(9,), with_actions=False)
    root = str(tmp_path / "other")
    with pytest.raises(ValueError, match="column 'action' of other cannot be kept"):
        combined(video_dataset_root, tmp_path / "data", AddedSourceConfig(dataset_root=root, keep=[ACTION]))
    with pytest.raises(ValueError, match="no camera 'nothing'"):
        combined(video_dataset_root, tmp_path / "data", AddedSourceConfig(dataset_root=root, camera="nothing"))
    other = open_dataset("other", tmp_path / "other")
    with pytest.raises(ValueError, match="other has no actions"):
        combine(other, [AddedSourceConfig(dataset_root=root)], tmp_path / "data", repo_id="local/combined")
    with pytest.raises(ValueError, match=r"episodes has \[9\]"):
        combined(video_dataset_root, tmp_path / "data", AddedSourceConfig(dataset_root=root), labelled_episodes=[9])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").touch()
    with pytest.raises(FileExistsError):
        combined(video_dataset_root, tmp_path / "data", AddedSourceConfig(dataset_root=root))


def test_counts_say_what_each_source_gives(video_dataset_root: Path, tmp_path: Path) -> None:
    source = AddedSourceConfig(video_dir=str(films(tmp_path / "films")), instruction="Watch")
    first = open_dataset("local/first", video_dataset_root)
    counts = combine(first, [source], tmp_path / "data", repo_id="local/combined", labelled_episodes=[0])
    assert counts == [
        SourceCount("local/first", 6, FRAMES, LENGTHS[0], (0,), video_dataset_root),
        SourceCount("films", 2, 22, 0, ()),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one dataset"),
        ({"dataset_root": "a", "video_dir": "b"}, "one dataset"),
        ({"video_dir": "films"}, "need an instruction"),
        ({"video_dir": "films", "instruction": " "}, "instruction is empty"),
        ({"video_dir": "films", "instruction": "Go", "keep": ["action"]}, "keep does not go with video_dir"),
        ({"dataset_root": "a", "skip_bad_videos": True}, "skip_bad_videos does not go with a dataset"),
        ({"dataset_root": "a", "camera": "b", "camera_map": {"a": "b"}}, "not both"),
    ],
)
def test_contradictory_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AddedSourceConfig(**options)  # pyright: ignore[reportArgumentType]
