"""Labels are of the frames they were made from, wherever the dataset lies and whatever LeRobot's tools did to it."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lerobot.datasets import aggregate
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.dataset_tools import delete_episodes, merge_datasets, remove_feature, split_dataset
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from hlrp.cli.precompute_latent_codes import PrecomputeConfig, precompute_latent_codes
from hlrp.data.dataset import open_dataset
from hlrp.data.dataset_labels import labels_of_dataset
from hlrp.data.labels import CODES, LAQ_MARK, METADATA_FILE, LatentLabels, find_labels, has_labels, load_labels
from hlrp.data.recording_identity import RecordingIdentity, dataset_identity
from policy_workshop import make_foundation, make_laq
from tiny_datasets import CAMERA, TASKS, create_dataset, rename_tasks

LENGTHS = (7, 6)


@pytest.fixture(scope="module")
def laqs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("laqs")
    return [make_laq(folder / "one"), make_laq(folder / "other", seed=5)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes; read only."""
    root = tmp_path_factory.mktemp("plain") / "data"
    create_dataset(root, lengths=LENGTHS)
    return root


@pytest.fixture(scope="module")
def labelled(plain: Path, laqs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with labels as columns; read only."""
    root = tmp_path_factory.mktemp("labelled") / "data"
    label(plain, laqs[0], output_dataset=root)
    return root


def label(root: Path, laq: Path, **places: Path) -> LatentLabels:
    named = {name: str(path) for name, path in places.items()}
    precompute_latent_codes(PrecomputeConfig(laq_path=str(laq), dataset_root=str(root), device="cpu", **named))
    return find_labels(places.get("output_dataset", root), places.get("output_dir"))


def labels_in(root: Path, labels_path: Path | None = None) -> LatentLabels:
    return labels_of_dataset(open_dataset("local/x", root).meta, labels_path)


def identity(root: Path, *, with_instructions: bool = False) -> RecordingIdentity:
    return dataset_identity(open_dataset("local/x", root).meta, [CAMERA], with_instructions=with_instructions)


def edit_rows(root: Path, name: str, values: np.ndarray) -> None:
    path = root / "data" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(path)
    field = table.schema.field(name)
    pq.write_table(
        table.set_column(table.schema.get_field_index(name), field, pa.array(list(values), field.type)), path
    )


# ---- The identity of frames ----


@pytest.mark.parametrize("kind", ["image", "video"])
def test_an_identity_moves_with_the_dataset(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    root = request.getfixturevalue(f"{kind}_dataset_root")
    moved = Path(shutil.copytree(root, tmp_path / "moved"))
    assert identity(moved) == identity(root)


def test_an_identity_survives_further_columns(plain: Path, labelled: Path) -> None:
    assert identity(labelled) == identity(plain)


def test_other_frames_of_equal_lengths_have_another_identity(plain: Path, tmp_path: Path) -> None:
    create_dataset(tmp_path / "other", lengths=LENGTHS, seed=1)
    mine, other = identity(plain), identity(tmp_path / "other")
    assert mine.clock == other.clock
    assert mine.records != other.records
    assert mine.pictures != other.pictures


@pytest.mark.parametrize("video", [False, True])
def test_a_dataset_rendered_anew_has_other_pictures_only(tmp_path: Path, video: bool) -> None:
    for seed in (0, 1):
        create_dataset(tmp_path / str(seed), lengths=(5, 4), seed=seed, video=video, with_actions=False)
    states = np.zeros((9, 4), dtype=np.float32)
    for seed in (0, 1):
        edit_rows(tmp_path / str(seed), "observation.state", states)
    mine, other = (identity(tmp_path / str(seed)) for seed in (0, 1))
    assert (mine.clock, mine.records) == (other.clock, other.records)
    assert mine.pictures != other.pictures
    assert mine.difference(other) == "pictures"


def test_a_row_without_a_valid_action_has_an_identity_too(plain: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(plain, tmp_path / "data"))
    edit_rows(root, "action", np.full((sum(LENGTHS), 4), np.nan, dtype=np.float32))
    assert identity(root) == identity(root)
    assert identity(root).records != identity(plain).records


def test_matrices_and_single_numbers_have_an_identity(tmp_path: Path) -> None:
    number = {"dtype": "float32", "shape": (1,), "names": None}
    features = {"action": {**number, "shape": (2, 3)}, "observation.state": number}
    found = []
    for value in (0.0, 1.0):
        root = tmp_path / str(value)
        dataset = LeRobotDataset.create("local/x", fps=10, features=features, root=root, use_videos=False)
        for frame in range(3):
            action = np.full((2, 3), frame + value, dtype=np.float32)
            dataset.add_frame({"action": action, "observation.state": action[0, :1], "task": "Go"})
        dataset.save_episode()
        dataset.finalize()
        found.append(dataset_identity(LeRobotDatasetMetadata("local/x", root=root), []))
    assert found[0].records != found[1].records


# ---- Labels beside the data ----


def test_labels_of_another_dataset_with_equal_episodes_are_refused(
    plain: Path, laqs: list[Path], tmp_path: Path
) -> None:
    create_dataset(tmp_path / "other", lengths=LENGTHS, seed=1)
    labels = tmp_path / "labels"
    label(plain, laqs[0], output_dir=labels)
    assert len(labels_in(plain, labels).codes) == sum(LENGTHS)
    with pytest.raises(ValueError, match=r"were made from other frames .*actions differ; name labels of this dataset"):
        labels_in(tmp_path / "other", labels)
    shutil.copytree(labels, tmp_path / "other" / "latents")
    with pytest.raises(ValueError, match="were made from other frames"):
        labels_in(tmp_path / "other")


def test_labels_stay_valid_when_the_dataset_is_moved_and_gets_columns(
    plain: Path, labelled: Path, laqs: list[Path], tmp_path: Path
) -> None:
    labels = label(plain, laqs[0], output_dir=tmp_path / "labels")
    moved = Path(shutil.copytree(plain, tmp_path / "moved"))
    for root in (moved, labelled):
        assert torch.equal(labels_in(root, tmp_path / "labels").codes, labels.codes)


def test_labels_of_a_foundation_model_are_refused_if_an_instruction_has_changed(
    plain: Path, laqs: list[Path], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(plain, tmp_path / "data"))
    of_laq = label(root, laqs[0], output_dir=tmp_path / "of_laq")
    assert "instructions" not in (of_laq.metadata.frames or {})
    vla = make_foundation(tmp_path / "vla", fingerprint=of_laq.metadata.laq_fingerprint)
    label(root, laqs[0], output_dir=tmp_path / "of_vla", vla_checkpoint=vla)
    labels_in(root, tmp_path / "of_vla")
    rename_tasks(root, ["Lift the square", TASKS[1]])
    labels_in(root, tmp_path / "of_laq")
    with pytest.raises(ValueError, match="the instructions differ"):
        labels_in(root, tmp_path / "of_vla")


def test_the_numbers_of_tasks_are_no_part_of_the_instructions(tmp_path: Path) -> None:
    create_dataset(tmp_path / "one", lengths=LENGTHS)
    create_dataset(tmp_path / "other", lengths=LENGTHS, tasks=TASKS[::-1])
    one = identity(tmp_path / "one", with_instructions=True)
    assert one.instructions != identity(tmp_path / "other", with_instructions=True).instructions
    edit_rows(tmp_path / "one", "task_index", np.repeat([1, 0], LENGTHS))
    assert one.instructions != identity(tmp_path / "one", with_instructions=True).instructions
    rename_tasks(tmp_path / "one", TASKS[::-1])
    assert one == identity(tmp_path / "one", with_instructions=True)
    assert identity(tmp_path / "one").instructions is None


def test_labels_that_do_not_say_of_which_frames_are_used_with_a_warning(
    plain: Path, laqs: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    label(plain, laqs[0], output_dir=tmp_path / "labels")
    facts = json.loads((tmp_path / "labels" / METADATA_FILE).read_text())
    del facts["frames"]
    (tmp_path / "labels" / METADATA_FILE).write_text(json.dumps(facts))
    with caplog.at_level(logging.WARNING):
        labels_in(plain, tmp_path / "labels")
    assert "written by an earlier version" in caplog.text
    assert "hlrp-precompute-latent-codes --overwrite=true" in caplog.text


@pytest.mark.parametrize("name", ["labels.parquet", "labels.json"])
def test_a_damaged_label_file_is_named(plain: Path, laqs: list[Path], tmp_path: Path, name: str) -> None:
    label(plain, laqs[0], output_dir=tmp_path / "labels")
    path = tmp_path / "labels" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=f"{name} .*damaged"):
        load_labels(tmp_path / "labels")


# ---- Labels as columns ----


def test_label_columns_survive_lerobots_tools(labelled: Path, tmp_path: Path) -> None:
    before = labels_in(labelled)
    dataset = LeRobotDataset("local/x", root=labelled)
    kept = before.episode_index == 1
    delete_episodes(dataset, [0], output_dir=tmp_path / "deleted", repo_id="local/x")
    split_dataset(dataset, {"split": [1]}, output_dir=tmp_path)
    merge_datasets([dataset, dataset], "local/x", output_dir=tmp_path / "merged")
    expected = {
        "deleted": before.codes[kept],
        "split": before.codes[kept],
        "merged": torch.cat([before.codes, before.codes]),
    }
    for name, codes in expected.items():
        after = labels_in(tmp_path / name)
        assert torch.equal(after.codes, codes), name
        assert after.metadata == before.metadata, name


@pytest.mark.slow
def test_a_merge_of_datasets_labelled_by_two_laqs_is_found_out(
    plain: Path, labelled: Path, laqs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(plain, laqs[1], output_dataset=tmp_path / "other")
    both = [LeRobotDataset("local/x", root=root) for root in (labelled, tmp_path / "other")]
    with pytest.raises(ValueError, match="Same features is expected"):
        merge_datasets(both, "local/x", output_dir=tmp_path / "refused")
    # Another tool, or another version of LeRobot, may compare less.
    monkeypatch.setattr(aggregate, "features_equal_for_merge", lambda one, other: set(one) == set(other))
    merge_datasets(both, "local/x", output_dir=tmp_path / "merged")
    with pytest.raises(ValueError, match=r"13 of 26 rows of .* carry latent labels of another LAQ"):
        labels_in(tmp_path / "merged")

    label(tmp_path / "merged", laqs[0], output_dataset=tmp_path / "anew")
    assert len(labels_in(tmp_path / "anew").codes) == 26
    label(tmp_path / "merged", laqs[0])
    assert torch.equal(labels_in(tmp_path / "merged").codes, labels_in(tmp_path / "anew").codes)


def as_written_before(labelled: Path, root: Path) -> dict[str, object]:
    """Make a copy as earlier versions wrote it, without the mark of the LAQ; returns the metadata of its labels."""
    bare = remove_feature(LeRobotDataset("local/x", root=labelled), LAQ_MARK, output_dir=root, repo_id="local/x")
    path = bare.root / "meta" / "info.json"
    info = json.loads(path.read_text())
    facts = info["features"][CODES].pop("info")
    path.write_text(json.dumps(info))
    return facts


def test_label_columns_of_earlier_versions_load_with_a_warning(
    labelled: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    facts = as_written_before(labelled, tmp_path / "data")
    assert has_labels(tmp_path / "data")
    with pytest.raises(ValueError, match=r"nothing says which LAQ wrote it.*label the dataset again"):
        find_labels(tmp_path / "data")
    (tmp_path / "data" / "meta" / "latents.json").write_text(json.dumps(facts))
    with caplog.at_level(logging.WARNING):
        found = labels_in(tmp_path / "data")
    assert torch.equal(found.codes, labels_in(labelled).codes)
    assert "written by an earlier version" in caplog.text


def test_a_mark_differs_by_laq_camera_and_geometry(labelled: Path) -> None:
    facts = labels_in(labelled).metadata
    others = [
        replace(facts, laq_fingerprint="other"),
        replace(facts, camera="observation.images.wrist"),
        replace(facts, further_cameras=["observation.images.wrist"]),
        replace(facts, spec=replace(facts.spec, frame_offset_s=0.2)),
    ]
    assert len({facts.mark, *(other.mark for other in others)}) == 5
    assert replace(facts, frames={"episodes": "a"}).mark == facts.mark < 2**48
