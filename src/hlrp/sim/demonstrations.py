"""Record demonstrations of Meta-World's scripted experts as one LeRobotDataset.

Worker processes simulate episodes. The parent process writes them, in an order that depends only on the seed, into a
temporary folder, which is renamed to the target when the dataset is complete.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av.logging
import datasets
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION, OBS_IMAGE, OBS_STATE

from hlrp.report.cards.dataset_card import CARD_FILE, DatasetContent
from hlrp.runtime.checks import require_number
from hlrp.runtime.extras import require_packages
from hlrp.runtime.progress import ProgressBar
from hlrp.sim.config import SEEDS_PER_RECORDING, DemonstrationConfig
from hlrp.sim.demonstrations_card import TaskCount, demonstrations_card
from hlrp.sim.gl_backend import choose_gl_backend
from hlrp.sim.light_metaworld import ACTION_DIM, STATE_DIM, LightMetaworldEnv
from hlrp.sim.nuisance import STATE_NAMES
from hlrp.sim.scripted_episodes import (
    ScriptedEpisode,
    close_environment,
    prepare_worker,
    roll_out,
)
from hlrp.sim.tasks import expand_tasks, task_sentence
from hlrp.storage.files import new_directory, refuse_existing, sole_writer

METADATA_FILE = "meta/hlrp_demonstrations.json"
"""File of a recorded dataset that holds the options and the numbers of kept and dropped episodes."""

NUISANCE = "nuisance"
"""Dataset column of the nuisance's state, float32 (3,); only in recordings with a nuisance."""

FPS: int = LightMetaworldEnv.metadata["render_fps"]
FIRST_SEED = 100_000
"""Lowest seed of a demonstration. lerobot-eval uses other seeds (1000, 1001, …), so no test episode is recorded."""

_SMALL_VIDEO = RGBEncoderConfig(vcodec="h264", pix_fmt="yuv444p", g=2, crf=10, preset="veryfast")
"""Video encoder. yuv444p keeps the full colour resolution: the usual yuv420p halves it, which doubles the error of a
64-pixel image."""
# Several for each worker, so that no worker waits while the parent process writes an episode.
_IN_FLIGHT_PER_WORKER = 4
"""Episodes per worker that are simulated or wait to be written; bounds the memory."""
_Submit = Callable[..., Future[Any]]


def episode_seed(recording_seed: int, attempt: int) -> int:
    """Return the environment seed of the episode number `attempt` (from 0) of any task, in a recording's seed range."""
    assert 0 <= attempt < SEEDS_PER_RECORDING
    return FIRST_SEED + recording_seed * SEEDS_PER_RECORDING + attempt


def record_demonstrations(
    config: DemonstrationConfig,
    root: Path,
    *,
    repo_id: str,
    num_workers: int | None = None,
    show_progress: bool = True,
) -> list[TaskCount]:
    """Record the LeRobotDataset that `config` describes into the folder `root`.

    Args:
        config: What to record; the content of the dataset depends on nothing else.
        root: Folder of the new dataset; must not exist.
        repo_id: Name of the dataset, such as "local/hlrp_demos".
        num_workers: Number of simulation processes; None means one per core, 0 means this process.
        show_progress: Whether to draw a progress bar on stderr.

    Returns:
        One count per task, in the order of the tasks in the dataset.

    Raises:
        FileExistsError: If `root` exists, or another process is writing it.
        FileNotFoundError: If nothing on this machine can render without a display.
        OSError: If a video cannot be written, such as on a full disk.
        ValueError: If a task is unknown, or the scripted expert of a task fails too often.
    """
    require_number("num_workers", num_workers, at_least=0)
    require_packages("metaworld", needed_for="recording demonstrations")
    recordings = [_TaskRecording(task, config) for task in expand_tasks(",".join(config.tasks))]
    with sole_writer(root):
        refuse_existing(root)
        choose_gl_backend()  # before any worker starts, so that a machine that cannot render gets one message, not many
        with new_directory(root, create=False) as partial:
            with _quiet_libraries(), _new_dataset(config, partial, repo_id) as dataset:
                _simulate(recordings, dataset, num_workers, show_progress=show_progress)
            counts = [recording.count for recording in recordings]
            _write_metadata(partial, config, counts)
            card = demonstrations_card(DatasetContent.of(dataset.meta), config, counts)
            (partial / CARD_FILE).write_text(card, encoding="utf-8")
    return counts


def _simulate(
    recordings: list[_TaskRecording], dataset: LeRobotDataset, num_workers: int | None, *, show_progress: bool
) -> None:
    """Simulate the episodes of all tasks and write them to `dataset`."""
    num_workers = (os.cpu_count() or 1) if num_workers is None else num_workers
    total = sum(recording.config.episodes_per_task for recording in recordings)
    in_flight = _IN_FLIGHT_PER_WORKER * num_workers or 1  # without workers, an episode is written before the next one
    bar = ProgressBar("recording", total, unit="episode", is_shown=show_progress)
    with _simulators(num_workers) as submit, bar:
        for task, episode in _episodes(recordings, submit, in_flight=in_flight):
            _write_episode(dataset, episode, task_sentence(task))
            bar.update(1)


class _TaskRecording:
    """Attempts at one task: the pending ones in the order of their seeds, and counts of those that are finished."""

    def __init__(self, task: str, config: DemonstrationConfig) -> None:
        self.task = task
        self.config = config
        self.pending: deque[Future[ScriptedEpisode | None]] = deque()
        self.attempts = 0
        self.kept = 0
        self.dropped = 0
        self.frames = 0

    @property
    def wants_attempt(self) -> bool:
        """Whether another attempt is needed even if all pending ones succeed."""
        return self.kept + len(self.pending) < self.config.episodes_per_task

    @property
    def count(self) -> TaskCount:
        return TaskCount(self.task, kept=self.kept, dropped=self.dropped, frames=self.frames)

    def attempt(self, submit: _Submit) -> None:
        """Submit an episode with the next seed.

        Raises:
            ValueError: If `config.max_attempts` episodes were simulated without enough successes.
        """
        if self.attempts == self.config.max_attempts:
            raise ValueError(
                f"the expert for {self.task} succeeded in only {self.kept} of {self.attempts} episodes "
                f"within {self.config.rollout.max_steps} steps; raise max_steps, lower action_noise or drop "
                "the task"
            )
        seed = episode_seed(self.config.seed, self.attempts)
        self.pending.append(submit(roll_out, self.task, seed, self.config.rollout))
        self.attempts += 1

    def next_result(self) -> ScriptedEpisode | None:
        """Wait for the oldest pending attempt, count it, and return its episode; None if the expert failed."""
        episode = self.pending.popleft().result()
        if episode is None:
            self.dropped += 1
        else:
            self.kept += 1
            self.frames += len(episode.actions)
        return episode


def _episodes(
    recordings: list[_TaskRecording], submit: _Submit, *, in_flight: int
) -> Iterator[tuple[str, ScriptedEpisode]]:
    """Yield (task, successful episode), ordered by task and then by seed; the order is independent of the workers.

    At most `in_flight` episodes are simulated or wait at a time. While the last episodes of a task are awaited, workers
    already simulate the next tasks.
    """
    for index, current in enumerate(recordings):
        while current.pending or current.wants_attempt:
            for recording in recordings[index:]:
                while recording.wants_attempt and sum(len(r.pending) for r in recordings) < in_flight:
                    recording.attempt(submit)
            episode = current.next_result()
            if episode is not None:
                yield current.task, episode


@contextmanager
def _simulators(num_workers: int) -> Iterator[_Submit]:
    """Yield a function that submits a call to `num_workers` processes; with 0 it runs the call in this process."""
    if num_workers == 0:
        try:
            yield _run_here
        finally:
            close_environment()
        return
    # Never fork: OpenGL contexts and threads of the parent process do not work in a forked child.
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=prepare_worker)
    try:
        yield pool.submit
    finally:
        pool.shutdown(cancel_futures=True)


def _run_here(function: Callable[..., Any], *args: object) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(function(*args))
    return future


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Hide the progress bar of `datasets` and the report of the video encoder, which are printed for every episode."""
    bars_were_on = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    av.logging.set_libav_level(av.logging.WARNING)
    try:
        yield
    finally:
        av.logging.set_libav_level(av.logging.INFO)  # PyAV does not expose the earlier level; INFO is its default
        if bars_were_on:
            datasets.enable_progress_bars()


@contextmanager
def _new_dataset(config: DemonstrationConfig, root: Path, repo_id: str) -> Iterator[LeRobotDataset]:
    """Yield a new dataset in the folder `root`, which is complete when the block ends without an error."""
    dataset = _create_dataset(config, root, repo_id)
    try:
        yield dataset
        dataset.finalize()
    except BaseException:
        with suppress(Exception):  # the first error is the one to report
            dataset.clear_episode_buffer()  # ends the threads of the video encoders
        with suppress(Exception):
            dataset.finalize()
        # LeRobot would finalize again when it frees these objects, and make the folder anew that is removed by then.
        for part in (dataset.writer, dataset.meta):
            setattr(part, "_finalized", True)  # noqa: B010
        raise


def _create_dataset(config: DemonstrationConfig, root: Path, repo_id: str) -> LeRobotDataset:
    size, kind = config.rollout.image_size, config.rollout.nuisance
    nuisance = {NUISANCE: {"dtype": "float32", "shape": (3,), "names": STATE_NAMES[kind]}} if kind != "none" else {}
    return LeRobotDataset.create(
        repo_id,
        fps=FPS,
        root=root,
        robot_type="sawyer",
        features={
            OBS_IMAGE: {
                "dtype": "video" if config.video else "image",
                "shape": (size, size, 3),
                "names": ["height", "width", "channels"],
            },
            OBS_STATE: {"dtype": "float32", "shape": (STATE_DIM,), "names": ["x", "y", "z", "gripper"]},
            ACTION: {"dtype": "float32", "shape": (ACTION_DIM,), "names": ["dx", "dy", "dz", "gripper"]},
            **nuisance,
        },
        use_videos=config.video,
        rgb_encoder=_SMALL_VIDEO if config.video else None,
        streaming_encoding=config.video,
        # LeRobot drops frames when the encoder's queue is full, so the queue holds the longest possible episode.
        encoder_queue_maxsize=config.rollout.max_steps + config.rollout.tail_steps,
    )


def _write_episode(dataset: LeRobotDataset, episode: ScriptedEpisode, sentence: str) -> None:
    columns = {OBS_IMAGE: episode.images, OBS_STATE: episode.states, ACTION: episode.actions}
    if episode.nuisance is not None:
        columns[NUISANCE] = episode.nuisance
    for row in zip(*columns.values(), strict=True):
        with _encoder_errors():
            dataset.add_frame({**dict(zip(columns, row, strict=True)), "task": sentence})
    with _encoder_errors():
        dataset.save_episode()


@contextmanager
def _encoder_errors() -> Iterator[None]:
    """Raise an OSError where LeRobot raises a RuntimeError, because its thread that encodes a video has failed."""
    try:
        yield
    except RuntimeError as error:
        number = re.search(r"\[Errno (\d+)\]", str(error))  # LeRobot passes on only the text of the thread's error
        raise (OSError(int(number[1]), str(error)) if number else OSError(str(error))) from error


def _write_metadata(root: Path, config: DemonstrationConfig, counts: list[TaskCount]) -> None:
    description = {
        "source": "Meta-World scripted experts",
        "options": asdict(config),
        "counts": [asdict(count) for count in counts],
    }
    (root / METADATA_FILE).write_text(json.dumps(description, indent=2) + "\n")
