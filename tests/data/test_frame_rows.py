"""Rows of a dataset that are not the frames that its metadata promises are refused before anything is learnt."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from hlrp.data import row_chunks
from hlrp.data.dataset import open_dataset
from hlrp.data.frame_rows import require_sound_rows
from hlrp.data.time_stamps import TimeStampCheck
from tiny_datasets import CAMERA, FPS, LENGTHS

FIRST = LENGTHS[0]
"""Index of the second episode's first frame."""


@pytest.fixture(params=[5, FIRST, 1 << 16], autouse=True)
def chunk_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every finding is the same, whether rows are read in chunks that end in an episode, with one, or all together."""
    monkeypatch.setattr(row_chunks, "_CHUNK_ROWS", request.param)


@pytest.fixture
def root(image_dataset_root: Path, tmp_path: Path) -> Path:
    """A copy of the recorded images whose rows a test may change."""
    return Path(shutil.copytree(image_dataset_root, tmp_path / "data"))


def edit_rows(root: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    path = root / "data" / "chunk-000" / "file-000.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def with_column(table: pa.Table, name: str, values: np.ndarray) -> pa.Table:
    field = table.schema.field(name)
    return table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))


def shift_index(by: int) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        index = table["index"].to_numpy()
        return with_column(table, "index", np.where(index >= FIRST, index + by, index))

    return change


def scale_time(factor: float) -> Callable[[pa.Table], pa.Table]:
    return lambda table: with_column(table, "timestamp", table["timestamp"].to_numpy() * np.float32(factor))


def jitter_time(table: pa.Table) -> pa.Table:
    late = np.where(np.arange(len(table)) % 2, np.float32(0.004), np.float32(0))
    return with_column(table, "timestamp", table["timestamp"].to_numpy() + late)


def swap_episodes(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(FIRST, LENGTHS[1]), table.slice(0, FIRST), table.slice(FIRST + LENGTHS[1])])


CHANGES: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "index with a gap": (shift_index(5), r"frame 0 of episode 1 has index 17, expected 12.*type=split"),
    "index that restarts": (shift_index(-FIRST), r"frame 0 of episode 1 has index 0, expected 12"),
    "shuffled rows": (lambda t: t.take(np.arange(len(t))[::-1]), r"rows of .* are not in the order of the episodes"),
    "swapped episodes": (swap_episodes, r"row 0 holds frame 0 of episode 1, expected frame 0 of episode 0"),
    "doubled row": (lambda t: pa.concat_tables([t, t.slice(3, 1)]), r"13 rows of episode 0, meta/episodes says 12"),
    "removed row": (lambda t: t.take([i for i in range(len(t)) if i != 3]), r"11 rows of episode 0"),
    "unknown episode": (
        lambda t: with_column(t, "episode_index", t["episode_index"].to_numpy() + 1),
        r"a row of episode 6, meta/episodes lists 0 to 5",
    ),
    "frames counted through": (
        lambda t: with_column(t, "frame_index", np.arange(len(t))),
        r"row 12 holds frame 12 of episode 1, expected frame 0 of episode 1",
    ),
    "last row without a number": (
        lambda t: t.set_column(
            t.schema.get_field_index("frame_index"),
            "frame_index",
            pa.array([*t["frame_index"].to_pylist()[:-1], None]),
        ),
        r"column 'frame_index' of .* has rows without a number",
    ),
    "last row of an unknown task": (
        lambda t: with_column(t, "task_index", np.where(np.arange(len(t)) == len(t) - 1, 9, t["task_index"])),
        r"frame \d+ of .* has task 9, and .* lists \d+ tasks",
    ),
    "one time stamp that is none": (
        lambda t: with_column(t, "timestamp", np.where(np.arange(len(t)) == FIRST, np.nan, t["timestamp"])),
        r"shows no time from frame to frame",
    ),
    "another frame rate": (scale_time(1 / 3), r"says fps=10, the column `timestamp` shows 30 frames a second"),
    "no time": (scale_time(float("nan")), r"shows no time from frame to frame"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_rows_that_are_not_the_frames_promised_are_refused(root: Path, name: str) -> None:
    change, message = CHANGES[name]
    edit_rows(root, change)
    with pytest.raises(ValueError, match=message):
        open_dataset("local/x", root)
    with pytest.raises(ValueError, match=message):  # as the policies check it
        require_sound_rows(LeRobotDatasetMetadata("local/x", root=root), whole=False, tolerance_s=None)


def test_rough_time_stamps_need_a_tolerance(root: Path) -> None:
    edit_rows(root, jitter_time)
    with pytest.raises(ValueError, match=r"up to 0.004 s off 1/fps, tolerance_s=0.0001 .* set --tolerance_s=0.0044"):
        open_dataset("local/x", root)
    assert len(open_dataset("local/x", root, tolerance_s=0.0044)) == sum(LENGTHS)
    with pytest.raises(ValueError, match="tolerance_s must be finite and above 0, got nan"):
        open_dataset("local/x", root, tolerance_s=float("nan"))


def test_a_step_over_the_border_of_two_chunks_counts(root: Path) -> None:
    edit_rows(
        root, lambda t: with_column(t, "timestamp", t["timestamp"].to_numpy() + (t["frame_index"].to_numpy() >= 5))
    )
    with pytest.raises(ValueError, match=r"up to 1 s off 1/fps"):
        open_dataset("local/x", root)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_the_usual_time_between_frames_is_the_median(root: Path, share: float) -> None:
    meta = LeRobotDatasetMetadata("local/x", root=root)
    rng = np.random.default_rng(0)
    steps = np.where(rng.random(1000) < share, 0.02, 0.1) * rng.uniform(0.98, 1.02, 1000)
    seconds, frame = np.concatenate([[0], steps.cumsum()]), np.arange(1001)
    check = TimeStampCheck(meta, tolerance_s=None)
    for part in np.array_split(frame, 7):
        check.add(seconds[part], np.zeros(len(part), dtype=np.int64), part)
    assert check._median_step() == pytest.approx(np.median(steps), rel=2e-3)


def test_a_video_must_be_read_at_the_place_of_its_frame(video_dataset_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(video_dataset_root, tmp_path / "data"))
    edit_rows(root, lambda t: with_column(t, "timestamp", t["timestamp"].to_numpy() + np.float32(1)))
    with pytest.raises(
        ValueError, match=r"has the time stamp 2.4000 s, expected 1.4000 s: LeRobot would show a policy another picture"
    ):
        open_dataset("local/x", root)


def test_no_tolerance_hides_another_picture_of_a_video(video_dataset_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(video_dataset_root, tmp_path / "data"))

    def late(by: float) -> Callable[[pa.Table], pa.Table]:
        def change(table: pa.Table) -> pa.Table:
            frame, episode = table["frame_index"].to_numpy(), table["episode_index"].to_numpy()
            seconds = frame / FPS + by * ((frame >= 5) & (episode < 2))
            return with_column(table, "timestamp", seconds.astype(np.float32))

        return change

    edit_rows(root, late(0.2))
    for tolerance_s in (1e-4, 0.22):
        with pytest.raises(ValueError, match=r"another picture .* leave out the episodes .* \(0, 1\)") as error:
            open_dataset("local/x", root, tolerance_s=tolerance_s)
        assert "set --tolerance_s" not in str(error.value)
    edit_rows(root, late(0.04))
    with pytest.raises(ValueError, match=r"set --tolerance_s=0.044 here"):
        open_dataset("local/x", root)
    edit_rows(root, late(0.048))  # a tenth more than this would be over half a frame
    with pytest.raises(ValueError, match=r"allows less; correct the column `timestamp`"):
        open_dataset("local/x", root)


def test_episodes_must_follow_one_another(root: Path) -> None:
    path = root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(path)
    first = table["dataset_from_index"].to_numpy().copy()
    first[1] -= 1
    pq.write_table(with_column(table, "dataset_from_index", first), path)
    with pytest.raises(
        ValueError, match=r"row 1 is episode 1 with 20 frames from 11 to 32, expected episode 1 from 12"
    ):
        open_dataset("local/x", root)


def test_episodes_that_were_counted_and_not_listed_are_refused(root: Path) -> None:
    info = root / "meta" / "info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "total_episodes": 7}))
    with pytest.raises(ValueError, match=r"lists 6 episodes, meta/info.json counts 7"):
        open_dataset("local/x", root)


def test_a_choice_of_episodes_may_lack_the_others(root: Path) -> None:
    edit_rows(root, lambda t: t.slice(FIRST, LENGTHS[1]))
    require_sound_rows(LeRobotDatasetMetadata("local/x", root=root), whole=False, tolerance_s=None)
    with pytest.raises(FileNotFoundError, match="holds no row of episode 0"):
        open_dataset("local/x", root)


def test_a_streamed_dataset_has_no_rows_to_check(root: Path) -> None:
    shutil.rmtree(root / "data")
    meta = LeRobotDatasetMetadata("local/x", root=root)
    require_sound_rows(meta, whole=False, tolerance_s=None)
    assert meta.camera_keys == [CAMERA]
