"""Real LeRobotDatasets small enough for a test: a bright square that moves by the action, over a dark background.

Shapes: f frames of an episode, h and w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from lerobot.configs import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset

CAMERA = "observation.images.top"
SIZE = 32
SQUARE = 8
FPS = 10
TASKS = ("Move the square to the right", "Move the square to the left")
LENGTHS = (12, 20, 15, 13, 18, 14)
_VIDEO = RGBEncoderConfig(vcodec="h264", pix_fmt="yuv444p", g=2, crf=10, preset="veryfast")


def moving_square(length: int, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One episode.

    Returns:
        Images, uint8 RGB (f, h, w, 3); states (f, 4): x, y of the square and its last move, over the picture's side;
        actions (f, 4): the move (dx, dy) that leads to the next frame, in [-1, 1] for four pixels, a random number
        that shows nowhere, and a zero.
    """
    draw = np.random.default_rng(seed)
    place = draw.integers(SQUARE, SIZE - 2 * SQUARE, size=2)
    last = np.zeros(2, dtype=np.int64)
    images, states, actions = [], [], []
    for _ in range(length):
        image = np.full((SIZE, SIZE, 3), 40, dtype=np.uint8)
        image[place[1] : place[1] + SQUARE, place[0] : place[0] + SQUARE] = (250, 180, 60)
        move = draw.integers(-4, 5, size=2)
        move = np.clip(place + move, 0, SIZE - SQUARE) - place
        images.append(image)
        states.append(np.concatenate([place, last]) / SIZE)
        actions.append([move[0] / 4, move[1] / 4, draw.uniform(-1, 1), 0.0])
        place, last = place + move, move
    return np.stack(images), np.array(states, dtype=np.float32), np.array(actions, dtype=np.float32)


def create_dataset(
    root: Path,
    *,
    video: bool = False,
    lengths: Sequence[int] = LENGTHS,
    tasks: Sequence[str] = TASKS,
    cameras: Sequence[str] = (CAMERA,),
    with_actions: bool = True,
    fps: int = FPS,
    seed: int = 0,
) -> LeRobotDataset:
    """Record episodes of `lengths` frames with LeRobot's own writer to `root`; they take turns with the tasks."""
    image = {
        "dtype": "video" if video else "image",
        "shape": (SIZE, SIZE, 3),
        "names": ["height", "width", "channels"],
    }
    vector = {"dtype": "float32", "shape": (4,), "names": ["a", "b", "c", "d"]}
    features = {**dict.fromkeys(cameras, image), "observation.state": vector}
    if with_actions:
        features["action"] = vector
    dataset = LeRobotDataset.create(
        "local/moving_square",
        fps=fps,
        features=features,
        root=root,
        use_videos=video,
        rgb_encoder=_VIDEO if video else None,
    )
    for number, length in enumerate(lengths):
        for picture, state, action in zip(*moving_square(length, seed=100 * seed + number), strict=True):
            frame = {**dict.fromkeys(cameras, picture), "observation.state": state}
            if with_actions:
                frame["action"] = action
            dataset.add_frame({**frame, "task": tasks[number % len(tasks)]})
        dataset.save_episode()
    dataset.finalize()
    return dataset


def rename_tasks(root: Path, tasks: Sequence[str]) -> None:
    """Give the dataset in `root` other instructions."""
    path = root / "meta" / "tasks.parquet"
    table = pd.read_parquet(path)
    table.index = pd.Index(list(tasks), name=table.index.name)
    table.to_parquet(path)
