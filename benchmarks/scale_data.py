"""Data for the measurements of scale: a dataset of any number of tiny frames, and a LAQ for them.

A short recording is written with LeRobot's own writer. The large dataset repeats its episodes: the video file is linked
under many names, and the rows are numbered consecutively. So a million frames take seconds to write, and are loaded
like those of any other dataset.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lerobot.configs import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.report.saving import save_laq
from hlrp.storage.files import link_or_copy

CAMERA = "observation.images.top"
SIDE = 16
"""Height and width of a frame, in pixels."""
_EPISODES = 20
"""Episodes of the short recording."""
FRAMES_OF_AN_EPISODE = 500
FRAMES_OF_A_RECORDING = _EPISODES * FRAMES_OF_AN_EPISODE


def tiny_frames(root: Path, *, frames: int) -> Path:
    """Write a dataset of `frames` frames, a multiple of `FRAMES_OF_A_RECORDING`, to the folder `root` if it is missing.

    Returns:
        `root`.
    """
    if root.exists():
        return root
    short = root.with_name("recording")
    if not short.exists():
        _record(short)
    _repeat(short, root, frames // FRAMES_OF_A_RECORDING)
    return root


def tiny_laq(folder: Path) -> Path:
    """Save a LAQ with random weights for these frames to `folder`, unless it exists; returns `folder`."""
    if not folder.exists():
        torch.manual_seed(0)
        model = LatentActionQuantizer(replace(debug(), image_size=(SIDE, SIDE)))
        model(torch.rand(64, model.spec.num_frames, 1, 3, SIDE, SIDE))  # lets the quantizer see the scale of its input
        save_laq(model.eval(), folder, cameras=[CAMERA], quality=None, extra={})
    return folder


def _record(root: Path) -> None:
    shape, vector = (SIDE, SIDE, 3), {"dtype": "float32", "shape": (14,), "names": None}
    picture = {"dtype": "video", "shape": shape, "names": ["height", "width", "channels"]}
    dataset = LeRobotDataset.create(
        "local/tiny",
        fps=10,
        features={CAMERA: picture, "observation.state": vector, "action": vector},
        root=root,
        use_videos=True,
        rgb_encoder=RGBEncoderConfig(vcodec="h264", g=2, crf=30, preset="ultrafast"),
    )
    draw = np.random.default_rng(0)
    for _ in range(_EPISODES):
        for _ in range(FRAMES_OF_AN_EPISODE):
            values = draw.random(14, dtype=np.float32)
            frame = {CAMERA: draw.integers(0, 255, shape, dtype=np.uint8), "observation.state": values}
            dataset.add_frame({**frame, "action": values, "task": "move"})
        dataset.save_episode()
    dataset.finalize()


def _repeat(source: Path, root: Path, times: int) -> None:
    """Write the episodes of the recording `source`, which has one file of rows and one of video, `times` times."""
    rows = pq.read_table(next((source / "data").rglob("*.parquet")))
    episodes = pq.read_table(next((source / "meta" / "episodes").rglob("*.parquet")))
    video = next((source / "videos").rglob("*.mp4"))
    listed = []
    for number in range(times):
        first, episode = number * len(rows), {"episode_index": number * len(episodes)}
        (root / "data/chunk-000").mkdir(parents=True, exist_ok=True)
        pq.write_table(_shifted(rows, {"index": first, **episode}), root / f"data/chunk-000/file-{number:03d}.parquet")
        link_or_copy(video, root / f"videos/{CAMERA}/chunk-000/file-{number:03d}.mp4")
        files = {"data/file_index": number, f"videos/{CAMERA}/file_index": number}
        frames = {"dataset_from_index": first, "dataset_to_index": first}
        listed.append(_shifted(episodes, {**episode, **frames, **files}))
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.concat_tables(listed), root / "meta/episodes/chunk-000/file-000.parquet")
    for name in ("stats.json", "tasks.parquet"):
        link_or_copy(source / "meta" / name, root / "meta" / name)
    info = json.loads((source / "meta/info.json").read_text(encoding="utf-8"))
    counts = {"total_frames": times * len(rows), "total_episodes": times * len(episodes)}
    info |= {**counts, "splits": {"train": f"0:{times * len(episodes)}"}}
    (root / "meta/info.json").write_text(json.dumps(info), encoding="utf-8")


def _shifted(table: pa.Table, shifts: dict[str, int]) -> pa.Table:
    """`table` with the numbers of some columns raised."""
    for name, shift in shifts.items():
        place = table.column_names.index(name)
        values = pa.array(table.column(name).to_numpy() + shift, type=table.schema.field(name).type)
        table = table.set_column(place, name, values)
    return table
