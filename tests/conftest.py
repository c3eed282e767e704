"""What every test run shares: no network, one thread, a fixed seed, and shapes checked at run time."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Read by the libraries when they are imported, so set before any import below.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "disabled"
os.environ["TRACKIO_DIR"] = (_trackio := tempfile.TemporaryDirectory(prefix="trackio")).name
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest

import shape_checks

SHAPE_CHECKED = ["hlrp", "lerobot_policy_felix_bundle"]
"""Packages whose jaxtyping annotations beartype checks in test runs; a module name narrows it."""

shape_checks.install(SHAPE_CHECKED)

# Fixtures import PyTorch and LeRobot themselves: the process that hands out the tests to others reads this file, too,
# and the others start only when it is done.

# A shell lets what it starts in the background ignore Ctrl-C, also the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """Let every process run neighbouring tests, which share the fixtures of their file, unless told otherwise."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Compute in one thread: for tiny tensors, a second one costs more than it gives."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def quick_columns() -> None:
    """Let the `datasets` library take n steps for n columns, not n²; LeRobot's table of episodes has a hundred."""
    from datasets import Features
    from datasets.features.features import require_decoding

    def set_item(self: Features, name: str, feature: object) -> None:
        dict.__setitem__(self, name, feature)
        self._column_requires_decoding[name] = require_decoding(feature)

    # The library's own method sets all entries of `_column_requires_decoding` again.
    Features.__setitem__ = set_item


@pytest.fixture(autouse=True)
def seed() -> None:
    """Start every test from the same random state."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """Restore the log levels that a command run in this process changes, so that no test depends on an earlier one."""
    loggers = [logging.getLogger(), logging.getLogger("hlrp")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


# ---- Real LeRobotDatasets, recorded once per run; tests that write copy them first ----


@pytest.fixture(scope="session")
def image_dataset_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a LeRobotDataset of six episodes with frames as images; read only."""
    from tiny_datasets import create_dataset

    root = tmp_path_factory.mktemp("recorded") / "images"
    create_dataset(root)
    return root


@pytest.fixture(scope="session")
def video_dataset_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same six episodes with frames as videos; read only."""
    from tiny_datasets import create_dataset

    root = tmp_path_factory.mktemp("recorded") / "videos"
    create_dataset(root, video=True)
    return root


@pytest.fixture(scope="session")
def laq_path(image_dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a debug-size LAQ, trained for a moment on the recorded images; read only."""
    from hlrp.cli.train_laq import TrainLAQConfig, train_laq

    folder = tmp_path_factory.mktemp("stage1") / "laq"
    config = TrainLAQConfig(
        dataset_root=str(image_dataset_root), output_dir=str(folder), preset="debug", steps=60, device="cpu"
    )
    train_laq(config)
    return folder


@pytest.fixture(scope="session")
def labelled_dataset_root(image_dataset_root: Path, laq_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy of the recorded images with latent labels beside them, written by `laq_path`; read only."""
    from hlrp.cli.precompute_latent_codes import PrecomputeConfig, precompute_latent_codes

    root = tmp_path_factory.mktemp("labelled") / "images"
    shutil.copytree(image_dataset_root, root)
    precompute_latent_codes(PrecomputeConfig(laq_path=str(laq_path), dataset_root=str(root), device="cpu"))
    return root
