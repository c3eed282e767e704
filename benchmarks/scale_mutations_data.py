"""Mutations of datasets and labels whose files contradict each other, lead elsewhere, or ask for too much."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.scale_mutations_artefacts import CAMERA, LENGTHS, TASKS
from benchmarks.scale_mutations_changes import Change, column, damage, entry, rows, table

INFO, STATS, TASK_FILE = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
EPISODES, DATA = "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"
VIDEO = f"videos/{CAMERA}/chunk-000/file-000.mp4"
DATASET_FILES = (INFO, STATS, TASK_FILE, EPISODES, DATA, VIDEO)
FIRST, SECOND = LENGTHS[0], LENGTHS[0] + LENGTHS[1]
_FROM, _TO = f"videos/{CAMERA}/from_timestamp", f"videos/{CAMERA}/to_timestamp"


def _info(*changes: tuple[str, Any]) -> dict[str, Change]:
    return {f"info.json: {at}={str(value)[:40]}": entry(INFO, at, value) for at, value in changes}


def _at(place: int, value: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [*values[:place], value, *values[place + 1 :]]


def _swapped(values: list[Any]) -> list[Any]:
    return [values[2], values[1], values[0]]


def _elsewhere(folder: Path) -> None:
    """Let the videos be found outside the dataset's folder, where they are."""
    moved = folder.parent / "elsewhere"
    (folder / "videos").rename(moved)
    path = os.path.relpath(moved, folder)
    entry(INFO, "video_path", f"{path}/{{video_key}}/chunk-{{chunk_index:03d}}/file-{{file_index:03d}}.mp4")(folder)


def _linked(folder: Path) -> None:
    """Let a link in the dataset's folder lead to the tables of another place; hubs' caches are made of such links."""
    (folder / "data").rename(folder.parent / "elsewhere")
    (folder / "data").symlink_to(folder.parent / "elsewhere")


def _rotated(folder: Path) -> None:
    """Swap the pictures of the first and the last episode, which are equally long, in the table of the videos."""
    for name in (_FROM, _TO):
        column(EPISODES, name, _swapped)(folder)


DATASET_CHANGES: dict[str, Change] = {
    **_info(
        ("fps", 20),
        ("fps", 0),
        ("fps", -10),
        ("fps", math.nan),
        ("fps", 1e30),
        ("fps", "ten"),
        ("fps", None),
        ("fps", ...),
        ("total_episodes", 2),
        ("total_episodes", 0),
        ("total_episodes", 10**9),
        ("total_frames", 10),
        ("total_frames", 10**12),
        ("codebase_version", "v9.0"),
        ("codebase_version", "v2.1"),
        ("codebase_version", 3),
        ("video_path", "../other/{video_key}/{chunk_index}/{file_index}.mp4"),
        ("video_path", "/etc/{video_key}{chunk_index}{file_index}"),
        ("video_path", "videos/{video_key}/{chunk_index:>999999999}/{file_index}.mp4"),
        ("video_path", "videos/{video_key.__class__}/{chunk_index}/{file_index}.mp4"),
        ("video_path", "videos/{nothing}.mp4"),
        ("video_path", "videos/{video_key"),
        ("video_path", 3),
        ("video_path", None),
        ("data_path", "../../data/{chunk_index:03d}/{file_index:03d}.parquet"),
        ("data_path", "data/{chunk_index:>999999999}/{file_index}.parquet"),
        ("data_path", "/data/{chunk_index}/{file_index}.parquet"),
        ("features/action/shape", [3]),
        ("features/action/shape", [10**9]),
        ("features/action/shape", "two"),
        ("features/action/dtype", "object"),
        ("features/action/dtype", "string"),
        ("features/timestamp", ...),
        ("features", []),
        (f"features/{CAMERA}/shape", [2**20, 2**20, 3]),
        ("chunks_size", 0),
    ),
    "videos outside the folder": _elsewhere,
    "rows swapped": rows(DATA, lambda count: [1, 0, *range(2, count)]),
    "rows doubled": rows(DATA, lambda count: [0, *range(count)]),
    "row left out": rows(DATA, lambda count: [i for i in range(count) if i != 5]),
    "no rows": rows(DATA, lambda count: []),
    "episodes swapped in the data": rows(
        DATA, lambda count: [*range(FIRST, SECOND), *range(FIRST), *range(SECOND, count)]
    ),
    "episodes swapped in the metadata": rows(EPISODES, lambda count: [1, 0, 2]),
    "episode doubled in the metadata": rows(EPISODES, lambda count: [0, 0, 1, 2]),
    "episode left out of the metadata": rows(EPISODES, lambda count: [0, 2]),
    "pictures of episodes swapped": _rotated,
    "timestamps shifted": column(DATA, "timestamp", lambda values: [value + 1 for value in values]),
    "timestamps of an episode shifted": column(
        DATA, "timestamp", lambda values: [v + 0.4 if i < FIRST else v for i, v in enumerate(values)]
    ),
    "timestamps NaN": column(DATA, "timestamp", _at(4, math.nan)),
    "timestamps 1e30": column(DATA, "timestamp", _at(4, 1e30)),
    "timestamps constant": column(DATA, "timestamp", lambda values: [0.0] * len(values)),
    "index shifted": column(DATA, "index", lambda values: [value + 1 for value in values]),
    "index huge": column(DATA, "index", _at(3, 2**62)),
    "frame_index wrong": column(DATA, "frame_index", _at(3, 7)),
    "episode_index negative": column(DATA, "episode_index", _at(3, -1)),
    "task_index unknown": column(DATA, "task_index", _at(3, 99)),
    "action column gone": table(DATA, lambda found: found.drop_columns(["action"])),
    "action column text": table(
        DATA,
        lambda found: found.set_column(found.schema.get_field_index("action"), "action", pa.array(["x"] * len(found))),
    ),
    "action column longer": table(
        DATA,
        lambda found: found.set_column(
            found.schema.get_field_index("action"), "action", pa.array([[0.5, 0.5, 0.5]] * len(found))
        ),
    ),
    "index column null": column(DATA, "index", _at(3, None)),
    "action null": column(DATA, "action", _at(3, None)),
    "episode length wrong": column(EPISODES, "length", _at(1, 5)),
    "episode bounds overlap": column(EPISODES, "dataset_from_index", _at(1, FIRST - 2)),
    "episode end huge": column(EPISODES, "dataset_to_index", _at(2, 2**62)),
    "episode tasks of another": column(EPISODES, "tasks", lambda values: [values[1], values[0], values[2]]),
    "video start shifted": column(EPISODES, _FROM, _at(1, 0.3)),
    "video start beyond the end": column(EPISODES, _FROM, _at(2, 500.0)),
    "video start NaN": column(EPISODES, _FROM, _at(1, math.nan)),
    "video start negative": column(EPISODES, _FROM, _at(0, -5.0)),
    "video starts overlap": column(EPISODES, _FROM, lambda values: [values[0]] * 3),
    "video end shifted": column(EPISODES, _TO, _at(1, 99.0)),
    "video file number huge": column(EPISODES, f"videos/{CAMERA}/file_index", _at(1, 10**12)),
    "video file number negative": column(EPISODES, f"videos/{CAMERA}/chunk_index", _at(1, -1)),
    "data file number wrong": column(EPISODES, "data/file_index", _at(1, 7)),
    "video of another file type": lambda folder: (folder / VIDEO).write_bytes((folder / DATA).read_bytes()),
    "tasks doubled": rows(TASK_FILE, lambda count: [0, 0]),
    "tasks left out": rows(TASK_FILE, lambda count: [0]),
}


def _picture(value: Any) -> Change:
    return column(DATA, CAMERA, _at(4, value))


IMAGE_CHANGES: dict[str, Change] = {
    "data behind a link": _linked,
    "picture cut": column(DATA, CAMERA, lambda v: _at(4, {**v[4], "bytes": v[4]["bytes"][:100]})(v)),
    "picture empty": _picture({"bytes": b"", "path": None}),
    "picture null": _picture(None),
    "picture at a path outside": _picture({"bytes": None, "path": "/etc/hostname"}),
    "picture huge": _picture(
        {"bytes": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\2\0\0\0", "path": None}
    ),
    "parquet flipped": damage(DATA)["flipped"],
    "rows swapped": rows(DATA, lambda count: [1, 0, *range(2, count)]),
}


def _labels(*changes: tuple[str, Any]) -> dict[str, Change]:
    return {f"labels.json: {at}={str(value)[:40]}": entry("labels.json", at, value) for at, value in changes}


def _codebook_without_entry(folder: Path) -> None:
    path = folder / "labels.json"
    values = json.loads(path.read_text())
    values["codebook"] = [slot[:-1] for slot in values["codebook"]]
    path.write_text(json.dumps(values))


def _vectors(value: float) -> Change:
    return column("labels.parquet", "latent_vectors", lambda rows: _at(2, [value, *rows[2][1:]])(rows))


LABEL_CHANGES: dict[str, Change] = {
    **_labels(
        ("spec/codebook_size", 16),
        ("spec/codebook_size", 10**9),
        ("spec/code_seq_len", 2),
        ("spec/code_seq_len", 10**7),
        ("spec/frame_offset_s", 0.4),
        ("spec/frame_offset_s", 1e30),
        ("spec/num_frames", 3),
        ("fps", 20),
        ("fps", math.nan),
        ("camera", "observation.images.nothing"),
        ("codebook/0/0/0", math.nan),
        ("codebook/0/0/0", 1e30),
        ("codebook/0/0/0", "one"),
        ("codebook/0/0", []),
        ("codebook", []),
        ("frames", None),
        ("frames/pictures", "0" * 16),
        ("frames/episodes", ...),
        ("laq_fingerprint", 3),
        ("spec", ...),
    ),
    "codebook of fewer entries": _codebook_without_entry,
    "all codes 0": column("labels.parquet", "latent_codes", lambda rows: [[0] * len(row) for row in rows]),
    "all valid codes 0": column(
        "labels.parquet", "latent_codes", lambda rows: [row if row[0] < 0 else [0] * len(row) for row in rows]
    ),
    "code too large": column("labels.parquet", "latent_codes", lambda rows: _at(2, [99] * len(rows[2]))(rows)),
    "code missing": column("labels.parquet", "latent_codes", lambda rows: _at(2, [-1] * len(rows[2]))(rows)),
    "vectors NaN": _vectors(math.nan),
    "vectors 1e30": _vectors(1e30),
    "all valid": column("labels.parquet", "latent_valid", lambda values: [True] * len(values)),
    "rows swapped": rows("labels.parquet", lambda count: [1, 0, *range(2, count)]),
    "rows doubled": rows("labels.parquet", lambda count: [0, *range(count)]),
    "rows left out": rows("labels.parquet", lambda count: list(range(count - 3))),
    "episodes swapped": column(
        "labels.parquet", "episode_index", lambda values: [{0: 2, 2: 0}.get(value, value) for value in values]
    ),
    "column gone": table("labels.parquet", lambda found: found.drop_columns(["latent_codes"])),
    "codes text": table(
        "labels.parquet",
        lambda found: found.set_column(
            found.schema.get_field_index("latent_codes"), "latent_codes", pa.array(["x"] * len(found))
        ),
    ),
    "codes null": column("labels.parquet", "latent_codes", _at(2, None)),
    "valid null": column("labels.parquet", "latent_valid", _at(2, None)),
}
assert len(TASKS) == 2
