"""Speed of labelling a dataset of videos, compared with naive loops, and with decoding or encoding alone.

All run on the CPU, with one thread of torch each. Labels per CPU second do not depend on other work on the machine.
Labels per second of wall-clock time do, and are valid only on an otherwise idle machine with two free cores.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torchcodec.decoders import VideoDecoder

from hlrp.commands.precompute_latent_codes import open_job
from hlrp.data.dataset import open_dataset, require_camera
from hlrp.labelling.engine import label_shards, publish
from hlrp.labelling.job import LabelJob
from hlrp.labelling.work_folder import WorkFolder
from hlrp.laq.checkpoint import load_laq
from hlrp.laq.config import small
from hlrp.laq.model import LatentActionQuantizer
from hlrp.options.precompute_latent_codes import PrecomputeConfig
from hlrp.pixels import resize
from hlrp.report.saving import save_laq

_NAIVE = 200
"""Frames that the naive loop labels."""
_BATCH = 256
_PATIENCE_S = 600
"""Seconds after which a worker that never arrives has failed."""


def run(root: Path, runs: Path, *, quick: bool) -> dict[str, float]:
    """Labels per CPU second of everything that is compared; `*_wall` and the workers: per second of wall-clock time."""
    torch.set_num_threads(1)
    laq_path = _random_laq(root, runs / "laq")
    config = PrecomputeConfig(laq_path=str(laq_path), dataset_root=str(root), device="cpu")
    laq, dataset = load_laq(laq_path).model, open_dataset("local/robot", root)
    frames = min(dataset.meta.total_frames, 1500) if quick else dataset.meta.total_frames
    calls: dict[str, tuple[int, Callable[[], object]]] = {
        "naive": (_NAIVE, lambda: _naive(laq, LeRobotDataset("local/robot", root=root), _NAIVE)),
        "naive_windows": (_NAIVE, lambda: _naive_windows(laq, root, _NAIVE)),
        "decode": (frames, lambda: _decode(dataset, frames)),
        "encode": (frames, lambda: _encode(laq, frames)),
        "ours": (dataset.meta.total_frames, lambda: _ours(config, runs / "labels")),
    }
    found: dict[str, float] = {}
    for name, (count, call) in calls.items():
        cpu, wall = time.process_time(), time.perf_counter()
        call()
        found[name] = count / (time.process_time() - cpu)
        found[f"{name}_wall"] = count / (time.perf_counter() - wall)
        print(f"{name}: {found[name]:.0f} labels per CPU second", flush=True)
    for name, workers in {"one_worker": 1, "two_workers": 2}.items():
        found[name] = dataset.meta.total_frames / _workers(config, runs / name, workers)
        print(f"{name}: {found[name]:.0f} labels per second", flush=True)
    return found


def _random_laq(root: Path, folder: Path) -> Path:
    """A LAQ of the preset `small`; its speed does not depend on its weights."""
    if not folder.exists():
        torch.manual_seed(0)
        model = LatentActionQuantizer(small())
        model(torch.rand(16, model.spec.num_frames, 1, 3, *model.config.image_size))
        camera = require_camera(open_dataset("local/robot", root).meta, None)
        save_laq(model.eval(), folder, cameras=[camera], quality=None, extra={})
    return folder


def _naive(laq: LatentActionQuantizer, dataset: LeRobotDataset, count: int) -> None:
    """The simplest loop that a user would write: take two items of the dataset, encode their frames, repeat."""
    camera = require_camera(dataset.meta, None)
    for index in range(count):
        places = [index + delta for delta in laq.spec.frame_deltas(dataset.fps)]
        clip = torch.stack([resize(dataset[place][camera], laq.config.image_size) for place in places])
        laq.encode(clip[None])


def _naive_windows(laq: LatentActionQuantizer, root: Path, count: int) -> None:
    """The same with LeRobot's windows of frames, which decode the frames of a clip together."""
    camera = require_camera(open_dataset("local/robot", root).meta, None)
    times = [index * laq.spec.frame_offset_s for index in range(laq.spec.num_frames)]
    dataset = LeRobotDataset("local/robot", root=root, delta_timestamps={camera: times}, tolerance_s=1)
    for index in range(count):
        laq.encode(resize(dataset[index][camera], laq.config.image_size)[None])


def _decode(dataset: LeRobotDataset, count: int) -> None:
    """Decode the first frames of the first video file in order."""
    path = dataset.root / dataset.meta.get_video_file_path(0, require_camera(dataset.meta, None))
    decoder = VideoDecoder(path, seek_mode="approximate")
    for first in range(0, count, 64):
        decoder.get_frames_in_range(first, min(first + 64, count))


def _encode(laq: LatentActionQuantizer, count: int) -> None:
    clips = torch.randint(255, (_BATCH, laq.spec.num_frames, 1, 3, *laq.config.image_size), dtype=torch.uint8)
    for first in range(0, count, _BATCH):
        laq.encode(clips[: count - first])


def _ours(config: PrecomputeConfig, target: Path) -> None:
    job, work = _begun(config, target)
    label_shards(job, work, job.shards(), show_progress=False)
    publish(job, work, target, as_dataset=False, overwrite=True)


def _begun(config: PrecomputeConfig, target: Path) -> tuple[LabelJob, WorkFolder]:
    job, work = open_job(config, None), WorkFolder(target)
    work.prepare(job.fingerprint(), job.metadata)
    return job, work


def _workers(config: PrecomputeConfig, target: Path, count: int) -> float:
    """Seconds in which `count` processes, each on a core of its own, label all shards.

    The clock starts when all have opened the dataset, and stops when all have labelled their shards.
    """
    _, work = _begun(config, target)
    context = multiprocessing.get_context("spawn")
    ready, done = (context.Barrier(count + 1, timeout=_PATIENCE_S) for _ in range(2))
    processes = [
        context.Process(target=_work, args=(config, target, rank, count, ready, done)) for rank in range(count)
    ]
    for process in processes:
        process.start()
    ready.wait()
    start = time.perf_counter()
    done.wait()
    seconds = time.perf_counter() - start
    for process in processes:
        process.join()
    shutil.rmtree(work.path)
    return seconds


def _work(config: PrecomputeConfig, target: Path, rank: int, count: int, ready: Barrier, done: Barrier) -> None:
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    work = WorkFolder(target)
    job = open_job(config, work.metadata())
    ready.wait()
    label_shards(job, work, job.shards()[rank::count], show_progress=False)
    done.wait()
