"""Tiny LeRobotDatasets recorded in LeRobot's simulators by random actions, with latent labels of an untrained LAQ.

Shapes: h and w pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.envs.configs import EnvConfig
from lerobot.envs.factory import make_env
from lerobot.envs.utils import NEW_ROLLOUT_OPTION, preprocess_observation

from hlrp.cli.precompute_latent_codes import PrecomputeConfig, precompute_latent_codes
from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import LatentSpec
from hlrp.options.train_laq import TrainLAQConfig
from hlrp.report.saving import save_laq
from policy_workshop import make_foundation

REPO_ID = "local/recorded"
LABEL_FRAMES = 4
"""Frames that a label spans, at any frame rate."""


def only_environment(config: EnvConfig) -> gym.vector.VectorEnv:
    """The one environment of a configuration that names one task."""
    (tasks,) = make_env(config, n_envs=1).values()
    (environment,) = tasks.values()
    return environment


def record_episodes(config: EnvConfig, root: Path, *, task: str, episodes: int = 2, steps: int = 8) -> LeRobotDataset:
    """Record what random actions do, under the keys and at the sizes in which LeRobot hands them to a policy."""
    environment = only_environment(config)
    environment.action_space.seed(0)
    observation, _ = environment.reset(seed=[0], options={NEW_ROLLOUT_OPTION: True})
    frame = as_frame(observation, environment.action_space.sample())
    dataset = LeRobotDataset.create(REPO_ID, fps=config.fps, features=features_of(frame), root=root, use_videos=False)
    for episode in range(episodes):
        observation, _ = environment.reset(seed=[episode], options={NEW_ROLLOUT_OPTION: True})
        for _ in range(steps):
            action = environment.action_space.sample()
            dataset.add_frame({**as_frame(observation, action), "task": task})
            observation, *_ = environment.step(action)
        dataset.save_episode()
    environment.close()
    dataset.finalize()
    return dataset


def as_frame(observation: Mapping[str, Any], action: np.ndarray) -> dict[str, np.ndarray]:
    """What one environment delivers as a dataset stores it: uint8 RGB (h, w, 3), float32 vectors."""
    seen = {
        key: (255 * value[0]).round().byte().permute(1, 2, 0) if value.ndim == 4 else value[0]
        for key, value in preprocess_observation(observation).items()
    }
    return {**{key: value.numpy() for key, value in seen.items()}, "action": action[0].astype(np.float32)}


def features_of(frame: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Columns of a dataset of such frames."""
    return {
        key: {"dtype": "image", "shape": value.shape, "names": ["height", "width", "channels"]}
        if value.ndim == 3
        else {"dtype": "float32", "shape": value.shape, "names": None}
        for key, value in frame.items()
    }


def prepare_stages(dataset: LeRobotDataset, folder: Path) -> None:
    """What comes before a policy, untrained and of debug size: a LAQ, its labels of the dataset, a foundation model.

    The codes have the default geometry of `hlrp-train-laq`.
    """
    default = TrainLAQConfig()
    offset = LABEL_FRAMES / dataset.fps
    spec = LatentSpec(codebook_size=default.codebook_size, code_seq_len=default.code_seq_len, frame_offset_s=offset)
    torch.manual_seed(0)
    model = LatentActionQuantizer(replace(debug(), spec=spec))
    height, width = model.config.image_size
    model(torch.rand(64, 2, 1, 3, height, width))  # lets the quantizer see the scale of its input
    save_laq(model.eval(), folder / "laq", cameras=dataset.meta.camera_keys, quality=None, extra={})
    precompute_latent_codes(
        PrecomputeConfig(laq_path=str(folder / "laq"), dataset_root=str(dataset.root), device="cpu")
    )
    make_foundation(folder / "foundation", fingerprint=model.fingerprint(), spec=spec)
