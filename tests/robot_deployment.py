"""A robot without hardware, and saved policies for it.

The robot's joints go where they are sent, its camera has a fixed view. A module of its own, not of a test: LeRobot
finds a robot's class by the module and the name of its configuration.

Shapes: h chunk steps, a action dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.robots.config import RobotConfig
from lerobot.robots.robot import Robot
from torch import Tensor

from policy_workshop import Workshop
from tiny_datasets import CAMERA, SIZE, moving_square

JOINTS = ("a.pos", "b.pos", "c.pos", "d.pos")
CAMERA_NAME = "top"


@RobotConfig.register_subclass("pretend_arm")
@dataclass(kw_only=True)
class PretendArmConfig(RobotConfig):
    """`--robot.type=pretend_arm`"""

    start: list[float] = field(default_factory=lambda: [0.25, 0.5, 0.0, 0.0])
    """Where the joints stand before they are sent anywhere."""


class PretendArm(Robot):
    """Four joints and a camera; remembers what it was sent."""

    config_class = PretendArmConfig
    name = "pretend_arm"
    sent: ClassVar[list[dict[str, float]]] = []
    """Actions of all arms since the list was cleared: LeRobot's command builds its own."""

    def __init__(self, config: PretendArmConfig) -> None:
        super().__init__(config)
        self._joints = dict(zip(JOINTS, config.start, strict=True))
        self._picture = moving_square(1, seed=0)[0][0]
        self._connected = False

    @cached_property
    def observation_features(self) -> dict[str, Any]:
        return {**dict.fromkeys(JOINTS, float), CAMERA_NAME: (SIZE, SIZE, 3)}

    @cached_property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(JOINTS, float)

    @property
    def is_connected(self) -> bool:
        return self._connected

    def connect(self, calibrate: bool = True) -> None:
        self._connected = True

    @property
    def is_calibrated(self) -> bool:
        return True

    def calibrate(self) -> None: ...

    def configure(self) -> None: ...

    def get_observation(self) -> dict[str, Any]:
        return {**self._joints, CAMERA_NAME: np.copy(self._picture)}

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        self._joints = dict(action)
        self.sent.append(dict(action))
        return action

    def disconnect(self) -> None:
        self._connected = False


def save_policy(workshop: Workshop, folder: Path, kind: str, **changes: Any) -> Path:
    """Save an untrained policy with its processors, as `lerobot-train` does."""
    policy = workshop.policy(kind, **changes)
    policy.save_pretrained(folder)
    for processor in make_pre_post_processors(policy.config, dataset_stats=workshop.dataset.meta.stats):
        processor.save_pretrained(folder)
    return folder


def predicted_chunk(folder: Path, observation: dict[str, Any], task: str) -> Tensor:
    """Actions (h, a) in the robot's units that a saved policy answers with from seed 0."""
    config = PreTrainedConfig.from_pretrained(folder)
    policy = get_policy_class(config.type).from_pretrained(folder)
    before, after = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    batch = {
        CAMERA: torch.from_numpy(observation[CAMERA_NAME]).permute(2, 0, 1) / 255,
        "observation.state": torch.tensor([observation[joint] for joint in JOINTS]),
        "task": task,
    }
    prepared = before(batch)
    torch.manual_seed(0)
    return after(policy.predict_action_chunk(prepared))[0]
