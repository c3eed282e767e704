from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from PIL import Image

from hlrp.data.dataset import open_dataset
from hlrp.data.frames import CachedFrames, FrameSource, ImageFiles, open_frames, stored_frames
from hlrp.data.video_files import VideoFiles
from hlrp.pixels import resize
from tiny_datasets import CAMERA, FPS, LENGTHS, SIZE, moving_square

FULL = (SIZE, SIZE)
BLACK = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)
CLIPS = torch.tensor([[0, 1, 11], [31, 12, 20], [32, 32, 40], [91, 78, 85]])
"""In four of the episodes; not in order, and with a frame twice."""


@pytest.fixture(params=["image", "video"])
def dataset(request: pytest.FixtureRequest) -> LeRobotDataset:
    """The moving square, recorded both ways."""
    return open_dataset("local/x", request.getfixturevalue(f"{request.param}_dataset_root"))


def test_frames_decoded_on_demand_and_from_memory_are_the_same(dataset: LeRobotDataset) -> None:
    for size in (FULL, (16, 24)):
        cached = open_frames(dataset, CAMERA, size, cache_gib=1, show_progress=False)
        streamed = open_frames(dataset, CAMERA, size, cache_gib=0)
        assert isinstance(cached, CachedFrames)
        assert isinstance(streamed, VideoFiles | ImageFiles)
        assert len(cached) == len(streamed) == sum(LENGTHS)
        assert torch.equal(cached.read(CLIPS), streamed.read(CLIPS))
        assert cached.read(CLIPS).shape == (4, 3, 3, *size)


def test_frames_are_those_that_lerobot_itself_returns(dataset: LeRobotDataset) -> None:
    frames = open_frames(dataset, CAMERA, FULL, cache_gib=0)
    for i in (0, 11, 12, 31, 32, 50, 91):
        theirs = dataset[i][CAMERA]
        if theirs.is_floating_point():
            theirs = (255 * theirs).round().to(torch.uint8)
        assert torch.equal(frames.read(torch.tensor([[i]]))[0, 0], theirs), i


def test_every_frame_shows_what_was_recorded_at_its_place(dataset: LeRobotDataset) -> None:
    recorded = np.concatenate([moving_square(n, seed=i)[0] for i, n in enumerate(LENGTHS)])
    wanted = torch.from_numpy(recorded).permute(0, 3, 1, 2)
    frames = open_frames(dataset, CAMERA, FULL, cache_gib=1, show_progress=False)
    found = frames.read(torch.arange(len(wanted))[:, None])[:, 0]
    assert (found.int() - wanted.int()).abs().float().mean() < 2  # video compression
    if CAMERA in dataset.meta.image_keys:
        assert torch.equal(found, wanted)


def test_a_video_of_another_size_than_the_metadata_says_still_decodes(video_dataset_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(video_dataset_root, root)
    info = json.loads((root / "meta" / "info.json").read_text())
    info["features"][CAMERA]["shape"] = [384, 384, 3]
    (root / "meta" / "info.json").write_text(json.dumps(info))
    frames, same = (
        open_frames(open_dataset("local/x", path), CAMERA, FULL, cache_gib=0) for path in (root, video_dataset_root)
    )
    assert torch.equal(frames.read(CLIPS), same.read(CLIPS))


def test_start_times_in_long_files_are_exact(
    video_dataset_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(video_dataset_root, tmp_path / "data"))
    path = root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(path)
    for key in (f"videos/{CAMERA}/{side}_timestamp" for side in ("from", "to")):
        seconds = pa.array(2000 + table[key].to_numpy() + 1 / 30)  # not float32 numbers
        table = table.set_column(table.schema.get_field_index(key), key, seconds)
    pq.write_table(table, path)
    asked: list[float] = []
    monkeypatch.setattr(VideoFiles, "_decode", lambda _, path, seconds: asked.extend(seconds.tolist()) or BLACK)
    stored_frames(open_dataset("local/x", root), CAMERA, FULL).read(torch.tensor([[0]]))
    assert asked == [pytest.approx(2000 + 1 / 30 + 0.5 / FPS, abs=1e-9)]


def test_both_sources_read_by_the_same_protocol(dataset: LeRobotDataset) -> None:
    assert all(
        isinstance(open_frames(dataset, CAMERA, FULL, cache_gib=gib, show_progress=False), FrameSource)
        for gib in (0, 1)
    )


def test_a_fitting_size_is_left_alone_and_others_are_resized_as_pillow_does() -> None:
    frames = torch.randint(0, 256, (2, 3, 3, 40, 60), dtype=torch.uint8)
    assert resize(frames, (40, 60)) is frames
    small = resize(frames, (20, 15))
    assert small.shape == (2, 3, 3, 20, 15)
    assert small.dtype == torch.uint8
    picture = Image.fromarray(frames[1, 2].permute(1, 2, 0).numpy())
    wanted = np.asarray(picture.resize((15, 20), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(small[1, 2].permute(1, 2, 0).numpy().astype(int) - wanted).max() <= 1


def test_a_plain_colour_survives_any_resizing() -> None:
    frames = torch.full((1, 3, 17, 31), 255, dtype=torch.uint8)
    assert (resize(frames, (40, 8)) == 255).all()
