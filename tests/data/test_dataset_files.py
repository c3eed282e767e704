"""A LeRobotDataset whose files are missing, damaged or of an older format is refused in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hlrp.data.dataset import open_dataset
from tiny_datasets import CAMERA

EPISODES, DATA = "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"
VIDEO = f"videos/{CAMERA}/chunk-000/file-000.mp4"


@pytest.fixture
def root(video_dataset_root: Path, tmp_path: Path) -> Path:
    """A copy of the recorded videos that a test may damage."""
    return Path(shutil.copytree(video_dataset_root, tmp_path / "my data"))


def edit_info(root: Path, **changes: object) -> None:
    path = root / "meta" / "info.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


@pytest.mark.parametrize("name", ["meta/stats.json", "meta/tasks.parquet", EPISODES, DATA, VIDEO])
@pytest.mark.parametrize("is_cut", [False, True])
def test_a_file_that_is_missing_or_cut_short_is_named(root: Path, name: str, is_cut: bool) -> None:
    whole = (root / name).read_bytes()
    (root / name).unlink()
    if is_cut:
        (root / name).write_bytes(whole[: len(whole) // 2])
    # Of data and episodes there may be several files: without any, their folder is named.
    named = name if is_cut or not name.endswith("file-000.parquet") else name.split("/chunk")[0]
    with pytest.raises((FileNotFoundError, ValueError), match=f"{named}.*(again|anew)") as caught:
        open_dataset("local/x", root)
    assert str(caught.value).count("\n") == 0


def test_a_description_cut_short_is_named(root: Path) -> None:
    path = root / "meta" / "info.json"
    path.write_text(path.read_text()[:500])
    with pytest.raises(ValueError, match=r"meta/info.json is not valid JSON, .* copy info.json again"):
        open_dataset("local/x", root)


def test_a_dataset_without_statistics_names_the_command_that_computes_them(root: Path) -> None:
    (root / "meta" / "stats.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"stats.json is missing.*lerobot-edit-dataset.*=recompute_stats"):
        open_dataset("local/x", root)


@pytest.mark.parametrize("field", ["fps", "features", "codebase_version"])
def test_an_incomplete_description_is_named(root: Path, field: str) -> None:
    edit_info(root, **{field: None})
    with pytest.raises(ValueError, match=r"info.json"):
        open_dataset("local/x", root)


@pytest.mark.parametrize("feature", [{}, None, 3, {"shape": [1]}])
def test_a_feature_that_is_described_badly_is_named(root: Path, feature: object) -> None:
    features = json.loads((root / "meta" / "info.json").read_text())["features"]
    edit_info(root, features={**features, "action": feature})
    with pytest.raises(ValueError, match=r"info.json does not describe a LeRobotDataset .*copy info.json again"):
        open_dataset("local/x", root)


def test_a_column_that_the_metadata_promises_must_be_there(root: Path) -> None:
    pq.write_table(pq.read_table(root / DATA).drop_columns(["action"]), root / DATA)
    with pytest.raises(ValueError, match=r"file-000.parquet lacks the column 'action' that meta/info.json lists"):
        open_dataset("local/x", root)


def damage_the_middle(path: Path) -> None:
    """Keep the footer of a parquet file, and spoil its pages."""
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)
    path.write_bytes(content)


def test_a_file_with_damaged_rows_is_named(image_dataset_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(image_dataset_root, tmp_path / "data"))
    damage_the_middle(root / DATA)
    with pytest.raises(ValueError, match=r"data/chunk-000/file-000.parquet .*damaged; copy it again"):
        open_dataset("local/x", root)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (
            "v2.1",
            lambda root: (
                "`python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id=local/x "
                f"--root='{root}' --push-to-hub=false`"
            ),
        ),
        ("v2.0", lambda root: "`python -m lerobot.datasets.v21.convert_dataset_v20_to_v21 --repo-id=local/x`"),
        ("v4.0", lambda root: "needs a newer LeRobot"),
        ("three", lambda root: "'three' in meta/info.json, expected v3.0"),
    ],
)
def test_another_format_is_refused_with_the_command_that_converts_it(
    root: Path, version: str, expected: Callable[[Path], str]
) -> None:
    edit_info(root, codebase_version=version)
    with pytest.raises(ValueError, match="dataset format") as caught:
        open_dataset("local/x", root)
    assert expected(root) in str(caught.value)
    assert "\n" not in str(caught.value)
