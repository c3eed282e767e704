"""Configuration of `--env.type=hlrp_metaworld`, the light Meta-World environment in LeRobot's commands.

The plugin imports this module in every LeRobot command, so MuJoCo is only imported when an environment is built.
"""

from __future__ import annotations

import functools
import multiprocessing
import sys
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGE, OBS_STATE

from hlrp.runtime.checks import raises_parsing_errors, require_numbers
from hlrp.sim.config import MAX_EPISODE_STEPS, NuisanceKind, require_nuisance

# The keys are those of LeRobot's own Meta-World configuration, so that its policies fit both environments.
_FEATURES_MAP = {"action": ACTION, "agent_pos": OBS_STATE, "pixels/top": OBS_IMAGE}


@EnvConfig.register_subclass("hlrp_metaworld")
@dataclass
class LightMetaworldConfig(EnvConfig):
    """Meta-World with small images; `lerobot-eval` reports a success rate for each task."""

    task: str | None = "button-press-topdown-v3,drawer-close-v3,window-open-v3,door-open-v3"
    """Comma-separated tasks or LeRobot's difficulty groups (easy, medium, hard, very_hard)."""
    fps: int = 80
    """Control rate in Hz; must be 80, the rate of Meta-World."""
    episode_length: int = 500
    """Number of steps after which an episode without success ends as failed, at most 500."""
    observation_height: int = 64
    """Height of the images, in pixels."""
    observation_width: int = 64
    """Width of the images, in pixels."""
    camera_name: str = "corner2"
    """Name of the Meta-World camera that renders the images."""
    shadows: bool = False
    """Render shadows, reflections and smoothed edges, as `--env.type=metaworld` does; slow on a CPU."""
    nuisance: NuisanceKind = "none"
    """What moves in the images besides the robot: `none`, `distractor` (a floating ball) or `camera` (it shakes)."""
    visualization_height: int = 240
    """Height of the videos that lerobot-eval saves, in pixels."""
    visualization_width: int = 240
    """Width of the videos that lerobot-eval saves, in pixels."""
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    """Shapes of observations and actions; computed from observation_height and observation_width, any value given is
    replaced."""
    features_map: dict[str, str] = field(default_factory=_FEATURES_MAP.copy)
    """LeRobot's feature names by the environment's keys; a key that is left out keeps its default name."""

    @raises_parsing_errors
    def __post_init__(self) -> None:
        self.features_map = {**_FEATURES_MAP, **self.features_map}
        require_nuisance(self.nuisance)
        require_numbers(self, "observation_height", "observation_width", at_least=4)
        require_numbers(self, "visualization_height", "visualization_width", at_least=1)
        require_numbers(self, "episode_length", at_least=1, at_most=MAX_EPISODE_STEPS)
        if self.fps != 80:
            raise ValueError(f"fps must be 80, the rate at which Meta-World is controlled, got {self.fps}")
        self.features = {
            "action": PolicyFeature(type=FeatureType.ACTION, shape=(4,)),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(4,)),
            "pixels/top": PolicyFeature(
                type=FeatureType.VISUAL, shape=(self.observation_height, self.observation_width, 3)
            ),
        }

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of `LightMetaworldEnv`, except for the task."""
        return {
            "camera_name": self.camera_name,
            "observation_height": self.observation_height,
            "observation_width": self.observation_width,
            "visualization_height": self.visualization_height,
            "visualization_width": self.visualization_width,
            "shadows": self.shadows,
            "episode_length": self.episode_length,
            "nuisance": self.nuisance,
        }

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, Any]]:
        """Build one vector environment per task.

        Args:
            n_envs: Number of environments that are stepped together.
            use_async_envs: Whether each environment runs in its own process.

        Returns:
            `{task: {0: vector environment}}`, the nesting that LeRobot expects (task group, then task id).

        Raises:
            ValueError: If `task` is empty or holds a name that is neither a task nor a group.
        """
        from lerobot.envs.utils import _LazyAsyncVectorEnv, freeze_after_episode_end

        from hlrp.sim.light_metaworld import LightMetaworldEnv
        from hlrp.sim.tasks import expand_tasks

        if use_async_envs and n_envs > 1:
            preload_workers()
        envs: dict[str, dict[int, Any]] = {}
        for task in expand_tasks(self.task or ""):
            factories = [functools.partial(LightMetaworldEnv, task, **self.gym_kwargs)] * n_envs
            if use_async_envs and n_envs > 1:
                envs[task] = {0: _LazyAsyncVectorEnv(factories)}  # freezes finished environments itself
            else:
                envs[task] = {0: gym.vector.SyncVectorEnv([freeze_after_episode_end(make) for make in factories])}
        return envs


_WORKER_MODULES = ["lerobot.scripts.lerobot_eval", "lerobot.envs.utils", "hlrp.sim.light_metaworld"]
"""Modules that every worker process of an environment imports."""


def preload_workers() -> None:
    """Import once what worker processes of environments need, in the process from which LeRobot forks them.

    Otherwise every worker process imports it anew for every task, which takes 15 s of CPU time each. The import runs in
    the background, while LeRobot loads the policy. On other systems than Linux, this does nothing: some of their
    libraries break in a forked process, once they are imported.
    """
    if sys.platform == "linux":
        from multiprocessing import forkserver  # cannot be imported on Windows

        multiprocessing.get_context("forkserver").set_forkserver_preload(_WORKER_MODULES)
        forkserver.ensure_running()
