"""Meta-World environment with small images, fast enough for a laptop.

For the same seed and actions, states, rewards and success equal those of `lerobot.envs.metaworld.MetaworldEnv`. This
environment differs in four points: the image size can be chosen; shadows, reflections and edge smoothing are off by
default; after a success the environment waits for `reset` instead of resetting itself; a nuisance can be switched on.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from jaxtyping import Float, Float32

from hlrp.sim.camera import OffscreenCamera
from hlrp.sim.config import MAX_EPISODE_STEPS, NuisanceKind, require_nuisance
from hlrp.sim.nuisance import add_nuisance, nuisance_generator, nuisance_path
from hlrp.sim.tasks import import_metaworld, make_expert, require_task, task_sentence

ACTION_DIM = 4
STATE_DIM = 4

_BENCHMARK_SEED = 42
"""Seed of Meta-World's benchmark object, as in LeRobot's environment."""
_CORNER2_POSITION = (0.75, 0.075, 0.7)
"""Position of the camera corner2, in metres, as in LeRobot's environment."""


class LightMetaworldEnv(gym.Env):
    """One Meta-World task with small images.

    Observations: `pixels`, uint8 HWC in [0, 255], and `agent_pos`, float64 (x, y, z in metres and gripper
    opening in [0, 1]). Actions: (dx, dy, dz, gripper) in [-1, 1]. The simulation is built at the first reset,
    so that an environment can be sent to a worker process before it holds an OpenGL context.

    Args:
        task: A Meta-World task, such as "drawer-open-v3".
        camera_name: Name of the camera of the observations and of `render`.
        observation_height: Height of the observed images, in pixels.
        observation_width: Width of the observed images, in pixels.
        visualization_height: Height of the images of `render`, in pixels.
        visualization_width: Width of the images of `render`, in pixels.
        shadows: Whether to render shadows, reflections and smoothed edges, as LeRobot does; slow on a CPU.
        episode_length: Number of steps after which an episode is truncated, at most 500.
        nuisance: What moves in the images besides the robot and its objects; the physics is not affected.

    Raises:
        ValueError: If the task or the nuisance is unknown or a number is out of range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012 (gymnasium's own spelling)

    def __init__(
        self,
        task: str,
        *,
        camera_name: str = "corner2",
        observation_height: int = 64,
        observation_width: int = 64,
        visualization_height: int = 240,
        visualization_width: int = 240,
        shadows: bool = False,
        episode_length: int = MAX_EPISODE_STEPS,
        nuisance: NuisanceKind = "none",
    ) -> None:
        super().__init__()
        if not 1 <= episode_length <= MAX_EPISODE_STEPS:
            raise ValueError(f"episode_length must be between 1 and {MAX_EPISODE_STEPS}, got {episode_length}")
        require_nuisance(nuisance)
        self.task = require_task(task)
        self.task_description = task_sentence(self.task)
        self.render_mode = "rgb_array"
        self.camera_name = camera_name
        self.shadows = shadows
        self.nuisance: NuisanceKind = nuisance
        self._max_episode_steps = episode_length
        self._observation_size = (observation_height, observation_width)
        self._visualization_size = (visualization_height, visualization_width)
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Box(0, 255, shape=(*self._observation_size, 3), dtype=np.uint8),
                "agent_pos": spaces.Box(-1000.0, 1000.0, shape=(STATE_DIM,), dtype=np.float64),
            }
        )
        self.action_space = spaces.Box(-1, 1, shape=(ACTION_DIM,), dtype=np.float32)
        self._simulation: Any = None
        self._cameras: dict[tuple[int, int], OffscreenCamera] = {}
        self._expert: Any = None
        self._raw_observation: Any = None
        self._nuisance_path: Any = None
        self._images: dict[tuple[int, int], np.ndarray] = {}  # images of the present state, by their size
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode; `seed` determines the positions of the objects and the motion of the nuisance."""
        super().reset(seed=seed)
        if self._simulation is None:
            self._simulation = _build_simulation(self.task, self.camera_name)
        if seed is not None:
            self._simulation.seed(seed)
        self._raw_observation, _ = self._simulation.reset(seed=seed)
        self._expert = make_expert(self.task)
        self._steps = 0
        if self.nuisance != "none":
            self._nuisance_path = nuisance_path(
                self.nuisance,
                nuisance_generator(self.nuisance, self.task, int(self.np_random.integers(2**31))),
                num_frames=MAX_EPISODE_STEPS + 1,
                fps=self.metadata["render_fps"],
            )
        return self._observation(), {"task": self.task, "is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Simulate one step.

        Args:
            action: Shape (4,), finite; Meta-World clips the values to [-1, 1].

        Returns:
            (observation, reward, terminated, truncated, info): terminated after a success, truncated after
            `episode_length` steps; `info["is_success"]` tells whether the task is solved now.

        Raises:
            ValueError: If the action has another shape or holds NaN or infinity.
        """
        action = np.asarray(action)
        if action.shape != (ACTION_DIM,) or not np.isfinite(action).all():
            raise ValueError(f"expected {ACTION_DIM} finite numbers as the action, got {action}; check the policy")
        self._raw_observation, reward, done, truncated, info = self._simulation.step(action)
        self._steps += 1
        is_success = bool(info["success"])
        terminated = bool(done) or is_success
        truncated = bool(truncated) or self._steps >= self._max_episode_steps
        info = {**info, "task": self.task, "done": bool(done), "is_success": is_success}
        if terminated or truncated:
            info["final_info"] = {"task": self.task, "done": bool(done), "is_success": is_success}
        return self._observation(), float(reward), terminated, truncated, info

    def expert_action(self) -> Float[np.ndarray, " 4"]:
        """Return the next action of Meta-World's scripted expert; its values may lie outside [-1, 1]."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high", category=UserWarning)
            return self._expert.get_action(self._raw_observation)

    @property
    def nuisance_state(self) -> Float32[np.ndarray, " 3"] | None:
        """State of the nuisance in the last observation: the ball's centre in metres or the camera's turn in radians.

        `hlrp.sim.nuisance.STATE_NAMES` names the three numbers. None without a nuisance and before the first reset.
        """
        return None if self._nuisance_path is None else self._nuisance_path[self._steps].copy()

    def render(self) -> np.ndarray:
        """Return an image of the scene for videos, uint8 HWC in [0, 255], at the visualization size."""
        return self._image(self._visualization_size).copy()

    def close(self) -> None:
        """Free the cameras; a later reset builds the simulation again."""
        for camera in self._cameras.values():
            camera.close()
        self._cameras.clear()
        self._images.clear()
        self._simulation = None

    def _observation(self) -> dict[str, np.ndarray]:
        self._images.clear()  # the state has changed
        return {
            "pixels": self._image(self._observation_size).copy(),
            "agent_pos": self._raw_observation[:STATE_DIM].copy(),
        }

    def _image(self, size: tuple[int, int]) -> np.ndarray:
        """Image of the present state, rendered once: lerobot-eval asks again and again for that of an ended episode."""
        if size not in self._images:
            self._images[size] = self._render_image(size)
        return self._images[size]

    def _render_image(self, size: tuple[int, int]) -> np.ndarray:
        if size not in self._cameras:
            height, width = size
            self._cameras[size] = OffscreenCamera(
                self._simulation.model,
                camera_name=self.camera_name,
                height=height,
                width=width,
                shadows=self.shadows,
            )
        state = self.nuisance_state
        alter_scene = None if state is None else functools.partial(add_nuisance, self.nuisance, state=state)
        return self._cameras[size].render(self._simulation.data, alter_scene=alter_scene)


def _build_simulation(task: str, camera_name: str) -> Any:
    """Build Meta-World's environment for `task`, with the settings of LeRobot's environment."""
    benchmark = import_metaworld().MT1(task, seed=_BENCHMARK_SEED)
    simulation = benchmark.train_classes[task](camera_name=camera_name)
    simulation.set_task(benchmark.train_tasks[0])
    simulation.model.camera("corner2").pos[:] = _CORNER2_POSITION
    simulation.reset()
    simulation._freeze_rand_vec = False  # place the objects anew in every episode
    simulation.seeded_rand_vec = True  # place them by the seed of `reset`, not by the global generator
    return simulation
